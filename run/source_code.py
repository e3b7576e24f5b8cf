"""Which code a result depends on: a hash of the modules that produce it, so changed code never reuses old numbers.

Modules are found by reading import statements, including those inside functions; nothing is imported. Comments, docstrings and layout
are ignored: they change no number.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("run", "metrics", "data", "pretrain", "features", "ctr", "eval")
# these have visible effects, but change no number; the settings that run.config reads are in a stage's key themselves
SILENT = (
    "run.errors", "run.progress", "run.stop", "run.parallel", "run.folder", "run.files", "run.prefetch", "run.source_code", "run.config",
    "run.workplace", "data.identity", "data.hash_cache",
)  # fmt: skip


def code_hash(*modules: str, without: Collection[str] = ()) -> str:
    """A hash of the code of these modules and of every module of this project that they import, directly or not.

    Args:
        modules: dotted names, such as "ctr.training.loop".
        without: modules to leave out, with their imports: a table's other entries, say.

    Raises:
        ValueError: there is no such module.
    """
    digest = hashlib.sha256()
    for name in sorted(modules_of(*modules, without=without)):
        digest.update(f"{name} {_code(name)}\n".encode())
    return digest.hexdigest()[:16]


def modules_of(*modules: str, without: Collection[str] = ()) -> set[str]:
    """The names that `code_hash` covers."""
    found: set[str] = set()
    open_ = list(modules)
    while open_:
        name = open_.pop()
        if name in found or name in without or ".".join(name.split(".")[:2]) in SILENT:
            continue
        found.add(name)
        open_ += _imports(name)
    return found


def _path(name: str) -> Path | None:
    """The file of a module of this project; None for any other name."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _tree(name: str) -> ast.Module:
    path = _path(name)
    if path is None:
        raise ValueError(f"no module {name} in this project")
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _code(name: str) -> str:
    """A module's syntax tree without docstrings, as a hash."""
    tree = copy.deepcopy(_tree(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@cache
def _imports(name: str) -> tuple[str, ...]:
    """The project's modules that a module imports when it runs; imports for type checkers only are ignored."""
    return tuple(sorted(set(_named(_tree(name)))))


def _named(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [full if _path(full) else node.module for full in names]
        yield from (name for name in names if name.split(".")[0] in PACKAGES and _path(name))
        yield from _named(node)
