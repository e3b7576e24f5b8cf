"""The rules of the house: who may import whom, what `--help` costs, what a command's module does on import."""

import ast
import importlib
import os
import statistics
import subprocess
import sys
from collections import Counter
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


def modules():
    """name -> file of every module in the packages."""
    found = {}
    for package in LINE:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def import_graph():
    """module -> project modules that it imports anywhere: at the top, inside functions, or for type checkers only."""
    known = modules()
    graph = {}
    for name, path in known.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= (full & set(known)) or {node.module}
        graph[name] = {other for other in named if other in known and other != name}
    return graph


def circle(graph):
    """One circle of a graph, as a list that ends where it begins; [] if there is none."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        path.append(node)
        found = next((found for other in sorted(graph.get(node, ())) if (found := visit(other))), [])
        path.pop()
        done.add(node)
        return found

    return next((found for node in sorted(graph) if (found := visit(node))), [])


def room(module):
    """The subfolder of a package that a module is in; a module directly in the package is a room of its own."""
    parts = module.split(".")
    return ".".join(parts[:2])


def test_no_modules_import_each_other_in_a_circle():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle(import_graph()) == []


def test_no_rooms_import_each_other_in_a_circle():
    rooms = {}
    for name, others in import_graph().items():
        rooms.setdefault(room(name), set()).update(room(other) for other in others)
    faces = {name for name, path in modules().items() if path.name == "__init__.py" and "." not in name}  # packages themselves
    graph = {name: others - {name} - faces for name, others in rooms.items() if name not in faces}
    assert circle(graph) == []


def functions():
    """(place, lines) of every function in the packages."""
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_functions_files_and_folders_stay_small():
    assert [(place, lines) for place, lines in functions() if lines > 65] == []
    assert statistics.median(len(path.read_text().splitlines()) for path in modules().values()) < 200
    sizes = Counter(path.parent.relative_to(ROOT).as_posix() for path in modules().values())
    assert {folder: size for folder, size in sizes.items() if size > 14} == {}


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
    """tyro gives the comment above two fields to both, and nothing to a field without a comment."""
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
    described = [" ".join(text.split()).partition("(default:")[0] for text in texts.values()]
    described = [text for text in described if not text.startswith("of a built-in world")]
    assert len(described) > 25
    assert "" not in described
    assert len(described) == len(set(described))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_ends_with_code_2_and_no_traceback(command):
    done = subprocess.run([sys.executable, "-m", command, "--no-such-flag", "1"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_nothing_from_outside_is_unpickled():
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
