"""The rules of the house: who may import whom, what a command costs to ask for help, what an entry module does on import."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINE = ("run", "metrics", "data", "pretrain", "features", "ctr", "eval")
COMMANDS = (
    "eval.compare", "ctr.train", "pretrain.train", "features.embed", "features.cluster", "data.validate", "data.make_world",
    "ctr.export", "ctr.score", "ctr.bulk_predict",
)  # fmt: skip
HEAVY = ("torch", "torchrec", "lightning_fabric", "matplotlib", "sklearn", "faiss")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            yield f"{path.parent.name}.{node.module or ''}"


@pytest.mark.parametrize("package", LINE)
def test_a_package_imports_only_those_left_of_it(package):
    allowed = LINE[: LINE.index(package) + 1]
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[0] in LINE and name.split(".")[0] not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command):
    code = (
        f"import sys, {command} as command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout + done.stderr
    assert "usage" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_one_screen_and_names_the_full_one(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        importlib.import_module(command).main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert not end.value.code
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("--help-all shows")


@pytest.mark.parametrize("command", ["pretrain.train", "ctr.train", "eval.compare"])
def test_every_flag_has_a_help_text_of_its_own(command):
    """tyro gives the comment above two fields to both, and a field without a comment nothing."""
    done = subprocess.run(
        [sys.executable, "-m", command, "--help-all"], capture_output=True, text=True, cwd=ROOT, env=os.environ | {"COLUMNS": "80"}
    )
    texts, flag = {}, None
    for line in done.stdout.splitlines():
        if line.startswith("╭"):  # a group of flags may begin with a sentence of its own
            flag = None
        elif line.startswith("│ --"):
            flag, _, text = line.strip("│ ").partition("  ")
            texts[flag] = text
        elif line.startswith("│  ") and flag:
            texts[flag] += " " + line.strip("│ ")
    said = [" ".join(text.split()).partition("(default:")[0] for text in texts.values()]
    said = [text for text in said if not text.startswith("of a built-in world")]
    assert len(said) > 25
    assert "" not in said
    assert len(said) == len(set(said))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_ends_with_code_2_and_no_traceback(command):
    done = subprocess.run([sys.executable, "-m", command, "--no-such-flag", "1"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_nothing_unpickles_what_comes_from_outside():
    wrong = []
    for package in LINE:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                    owner = ast.unparse(node.func.value)
                    words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    if owner == "torch" and words.get("weights_only") != "True":
                        wrong.append(f"{path}: torch.load without weights_only")
                    if owner in ("np", "numpy") and words.get("allow_pickle", "False") != "False":
                        wrong.append(f"{path}: numpy.load with pickles")
                if isinstance(node, ast.Import) and any(name.name in ("pickle", "dill", "joblib") for name in node.names):
                    wrong.append(f"{path}: imports a pickle library")
    assert wrong == []
