"""The code of a factory, or of a user's attack, as hashes: its module, and what that imports from the user's folder.

Everything is found by parsing and nothing is imported, so `witness status` sees a changed factory at once, and a module
is never run in order to find out whether it has changed. What a module imports by a computed name is not found.
"""

import ast
import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from typing import Any

from align_core.errors import InputError, reason_of

INSTALLED_IN = frozenset({"site-packages", "dist-packages"})
"""Names of folders whose modules every node of a cluster has; their versions are recorded instead of their code."""

# In the order in which Python tries them.
_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)
_WITNESS = frozenset({"align_core", "pipelines", "tune_spaces"})
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_IGNORED_FIELDS = frozenset({"kind", "type_comment", "type_ignores"})

Code = dict[str, str]
"""Name of a module -> hash of its code."""


def factory_code(factory: str, beside: str | None, kind: str = "factory") -> Code:
    """The hash of every module that makes up a factory, by name.

    A source file counts as its syntax tree without docstrings, so that comments, blank lines, formatting and docstrings
    change nothing. A file that has no source, or that cannot be parsed, counts with its bytes.

    Followed are imports, wherever in a module they stand, that lead to the folder of the factories. Of a factory from
    elsewhere they are those that lead to its own package, or to its own folder where it is in none. Installed packages
    are not followed into, nor are the packages of Witness, whose changes are told by revision numbers.

    Args:
        factory: `module:callable`.
        beside: the folder of the experiment's factories, in which modules are looked for first.
        kind: what it is, as messages call it.

    Raises InputError where the factory's module is missing, has a syntax error, or cannot be read.
    """
    name = factory.partition(":")[0]
    return _Reader(name, _area(name, beside, kind), kind).read()


@dataclass(frozen=True)
class _Module:
    """A module or package: its file (None for a namespace package), and the folders of its sub-modules."""

    name: str
    file: Path | None
    folders: tuple[Path, ...] = ()

    @property
    def package(self) -> str:
        """The package to which its relative imports refer."""
        return self.name if self.folders else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class _Area:
    """Where top-level modules are looked for, and which modules count: those of the package `within`, or all."""

    top: _Module
    roots: tuple[Path, ...]
    within: str
    alone: bool = False

    def holds(self, name: str) -> bool:
        if self.alone:
            return name == self.within
        return not self.within or f"{name}.".startswith(f"{self.within}.")


def _area(name: str, beside: str | None, kind: str) -> _Area:
    top_name = name.partition(".")[0]
    if beside is not None and (top := _found(top_name, [Path(beside)])):
        return _Area(top, (Path(beside),), "")
    top = _found(top_name, [Path(entry) for entry in sys.path]) or _found_by_python(top_name)
    if top is None:
        raise InputError(f"{kind} {name}: no module {top_name!r} beside the experiment file or on PYTHONPATH")
    folder = top.folders[0].parent if top.folders else top.file.parent if top.file else None
    if folder is None or not INSTALLED_IN.isdisjoint(folder.parts):
        return _Area(top, (), name, alone=True)
    if top_name in _WITNESS:
        return _Area(top, (), name.rpartition(".")[0] or name)
    return _Area(top, (folder,), top_name if top.folders else "")


def _found(name: str, folders: Sequence[Path]) -> _Module | None:
    """The module with this dotted name in folders of its parent, found as Python's own path finder finds it."""
    last = name.rpartition(".")[2]
    portions = []
    for folder in folders:
        for stem in (f"{last}/__init__", last):
            for suffix in _SUFFIXES:
                file = folder / f"{stem}{suffix}"
                if file.is_file():
                    return _Module(name, file, (file.parent,) if stem != last else ())
        if (folder / last).is_dir():
            portions.append(folder / last)
    return _Module(name, None, tuple(portions)) if portions else None


def _found_by_python(top: str) -> _Module | None:
    """A top-level module that only Python's other finders know: editable installs, archives."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    file = Path(spec.origin) if spec.origin and spec.has_location else None
    return _Module(top, file, tuple(map(Path, spec.submodule_search_locations or ())))


class _Reader:
    """Reads the module of one factory or attack, and what it leads to within the area."""

    def __init__(self, name: str, area: _Area, kind: str) -> None:
        self.name, self.area, self.kind = name, area, kind
        self.modules: dict[str, _Module | None] = {area.top.name: area.top}
        self.code: Code = {}

    def read(self) -> Code:
        todo = [self.name]
        if self._module(self.name) is None:
            raise InputError(f"{self.kind} {self.name}: there is no such module in the package {self.area.top.name!r}")
        while todo:
            parts = todo.pop().split(".")
            for length in range(1, len(parts) + 1):  # importing a.b.c runs a and a.b too
                name = ".".join(parts[:length])
                module = self._module(name)
                if module and module.file and name not in self.code and self.area.holds(name):
                    self.code[name], imported = self._parsed(module, module.file)
                    todo += imported
        return dict(sorted(self.code.items()))

    def _module(self, name: str) -> _Module | None:
        if name not in self.modules:
            parent_name = name.rpartition(".")[0]
            parent = self._module(parent_name) if parent_name else None
            folders = (parent.folders if parent else ()) if parent_name else self.area.roots
            self.modules[name] = _found(name, folders)
        return self.modules[name]

    def _parsed(self, module: _Module, file: Path) -> tuple[str, list[str]]:
        """The hash of a module's code, and the dotted names of what it may import."""
        while not file.exists() and file != file.parent:  # within an archive
            file = file.parent
        try:
            content = file.read_bytes()
        except OSError as problem:
            raise InputError(f"{self.kind} {self.name}: {file} cannot be read ({reason_of(problem)})") from problem
        tree = self._tree(module, file, content) if file.suffix in SOURCE_SUFFIXES else None
        if tree is None:
            return hashlib.sha256(content).hexdigest()[:16], []
        digest = hashlib.sha256("\0".join(_tokens(tree)).encode()).hexdigest()[:16]
        return digest, [name for imported in _imports(tree, module) for name in self._expanded(imported)]

    def _tree(self, module: _Module, file: Path, content: bytes) -> ast.Module | None:
        """The syntax tree; None for a file that cannot be parsed, which may still be one that is never imported."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the user's code, such as an invalid escape in a string
                return ast.parse(content, str(file))
        except (SyntaxError, ValueError) as problem:
            if module.name != self.name:
                return None
            line = f", line {problem.lineno}" if isinstance(problem, SyntaxError) and problem.lineno else ""
            reason = problem.msg if isinstance(problem, SyntaxError) else reason_of(problem)
            raise InputError(f"{self.kind} {self.name}: {file}{line}: not valid Python ({reason})") from problem
        except (RecursionError, MemoryError):  # nested too deeply for the parser
            return None

    def _expanded(self, name: str) -> list[str]:
        """`a.*`, which may import every module of the package `a`, as the names of these modules."""
        package, star, _ = name.partition(".*")
        if not star:
            return [name]
        module = self._module(package) if self.area.holds(package) else None
        folders = module.folders if module else ()
        stems = {path.name.partition(".")[0] for folder in folders for path in folder.iterdir()}
        return (
            [f"{package}.{stem}" for stem in sorted(stems) if stem.isidentifier() and "__" not in stem]
            if star
            else [name]
        )


def _imports(tree: ast.Module, module: _Module) -> Iterator[str]:
    """Dotted names of all that a module may import: of `from a import b` both a and a.b, as b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.package.split(".")
            if node.level > len(parents) or (node.level and not module.package):
                continue  # beyond the top: Python refuses it too
            start = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _tokens(tree: ast.Module) -> Iterator[str]:
    """The syntax tree as a sequence of texts that is the same in every version of Python that can parse it.

    Fields without a value are left out, because newer versions add such fields. A stack takes the place of recursion,
    which long expressions would exhaust.
    """
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        field, value = stack.pop()
        if isinstance(value, ast.AST):
            yield f"{field}({type(value).__name__}"
            stack.append((")", None))
            for name, own in reversed(list(ast.iter_fields(value))):
                if (
                    name == "body"
                    and isinstance(value, _DOCUMENTED)
                    and ast.get_docstring(value, clean=False) is not None
                ):
                    own = own[1:]
                if own is not None and own != [] and name not in _IGNORED_FIELDS:
                    stack.append((name, own))
        elif isinstance(value, list):
            yield f"{field}[{len(value)}"
            stack += [("", item) for item in reversed(value)]
        elif field == ")":
            yield ")"
        else:
            shown = hex(value) if isinstance(value, int) else ascii(value)  # decimal digits of an integer are limited
            yield f"{field}={type(value).__name__}:{shown}"
