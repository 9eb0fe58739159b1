"""Reads and writes YAML. Unlike PyYAML by itself, it refuses duplicate keys and reads `1e-3` as a number.

What would take endless time or memory is refused: aliases that multiply, a thousand levels, numbers without end.

Settings of the command line, `--set key.path=value`, replace those of a file here.
"""

import math
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from align_core.errors import InputError

_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")
MOST_BYTES = 2**18
"""The size of the largest file that is read: an experiment with a thousand models is smaller."""
_MOST_VALUES = 100_000
_MOST_LEVELS = 50


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses duplicate keys, and whatever would take endless time, memory or levels."""

    _level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise yaml.composer.ComposerError(
                None,
                None,
                f"more than {_MOST_LEVELS} levels are nested here",
                self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _extent(node, {})
        return node

    def fetch_more_tokens(self) -> None:
        try:
            super().fetch_more_tokens()
        except yaml.scanner.ScannerError as problem:
            if "'\\t' that cannot start" in (problem.problem or ""):
                problem.problem = "a tab stands here; indent, and separate, with spaces"
            raise

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Checked before `<<` is resolved, which adds the keys of other mappings to a mapping's own.
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}null":
                raise yaml.composer.ComposerError(None, None, "a key must be a word", key.start_mark)
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                kind = "yes or no" if key.tag == f"{_TAG}bool" else "a number"
                mend = f"the key {key.value} is read as {kind}; put it in quotes: '{key.value}'"
                raise yaml.composer.ComposerError(None, None, mend, key.start_mark)
            if key.value in seen and key.tag != f"{_TAG}merge":
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
            raise yaml.constructor.ConstructorError(
                None, None, "this text holds a sign that no name or path can have", node.start_mark
            )
        return value

    def construct_number(self, node: Any) -> int | float:
        """Reads a number as it looks: without base 8 for a leading zero, or base 60 for a colon."""
        written = self.construct_scalar(node)
        shown = written if len(written) <= 30 else f"{written[:30]}... ({len(written)} signs)"
        if re.match(r"[-+]?0[\d_]|.*:", written):
            mend = f"YAML reads {shown} in another base; write a plain number, or put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, mend, node.start_mark)
        try:
            read = self.construct_yaml_int if node.tag == f"{_TAG}int" else self.construct_yaml_float
            value: int | float = read(node)
            is_too_large = (
                abs(value) >= 2**63 if isinstance(value, int) else math.isinf(value) and "inf" not in written.lower()
            )
            if not is_too_large:
                return value
            problem = "is too large a number"
        except ValueError:
            problem = "is too large a number" if written[-1:].isdigit() else "is no number"
        raise yaml.constructor.ConstructorError(None, None, f"{shown} {problem}", node.start_mark)

    def refuse(self, node: Any) -> None:
        """Stands for every tag that no setting has, such as dates, sets and Python's objects."""
        tag = node.tag.replace(_TAG, "!!")
        raise yaml.constructor.ConstructorError(None, None, f"the tag {tag} is not known here", node.start_mark)


def _extent(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """The number of values below a node, and of levels, with every alias written out; memory must hold all of it.

    `known` has what was found before, by the node's identity; None while a node is under way. Raises ComposerError.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise yaml.composer.ComposerError(None, None, "what this anchor names contains itself", node.start_mark)
        return found
    known[id(node)] = None
    parts = list(chain.from_iterable(node.value)) if isinstance(node, yaml.MappingNode) else node.value
    below = [_extent(part, known) for part in parts] if isinstance(node, yaml.CollectionNode) else []
    values, levels = 1 + sum(count for count, _ in below), 1 + max((deep for _, deep in below), default=0)
    if values > _MOST_VALUES or levels > _MOST_LEVELS:
        what = f"{_MOST_VALUES:,} values" if values > _MOST_VALUES else f"{_MOST_LEVELS} levels"
        raise yaml.composer.ComposerError(None, None, f"with its aliases this is more than {what}", node.start_mark)
    known[id(node)] = values, levels
    return values, levels


_StrictLoader.yaml_constructors = {
    f"{_TAG}{name}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{name}"]
    for name in ("null", "bool", "str", "seq", "map")
}
for _kind in ("int", "float"):
    _StrictLoader.add_constructor(f"{_TAG}{_kind}", _StrictLoader.construct_number)
_StrictLoader.add_constructor(None, _StrictLoader.refuse)
# In YAML 1.1 `1e-3` is a string, because a float needs a dot and a signed exponent.
_StrictLoader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)
# Dates stay strings, since no key takes a date; so does `=`.
for _resolvers in _StrictLoader.yaml_implicit_resolvers.values():
    _resolvers[:] = [entry for entry in _resolvers if entry[0].removeprefix(_TAG) in _KNOWN_TAGS]


def parse_yaml(text: str, origin: str) -> Any:
    """Returns the content of a YAML text. Raises InputError, which names `origin` and the line."""
    if len(text) > MOST_BYTES:
        raise InputError(f"{origin}: is longer than {MOST_BYTES:,} bytes, which no file of settings is")
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as problem:
        line = f", line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
        mend = "; put an address with ? in quotes" if _has_address(text, problem) else ""
        raise InputError(f"{origin}{line}: {problem.problem or problem.context}{mend}") from problem
    except yaml.reader.ReaderError as problem:
        number = text.count("\n", 0, problem.position) + 1
        raise InputError(f"{origin}, line {number}: the sign U+{problem.character:04X} is not allowed") from problem
    except yaml.YAMLError as problem:
        raise InputError(f"{origin}: this is not valid YAML ({problem})") from problem


def _has_address(text: str, problem: yaml.MarkedYAMLError) -> bool:
    """Whether an address with a question mark, which means something within braces, is on the line that is no YAML."""
    if not isinstance(problem, yaml.parser.ParserError | yaml.scanner.ScannerError) or problem.problem_mark is None:
        return False
    line = text.splitlines()[problem.problem_mark.line :][:1]
    return any("?" in own.partition("://")[2] for own in line)


def _text_of(path: Path) -> str:
    """The text of a file; no more of it is read than a file of settings can have. Raises InputError."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError as problem:
        raise InputError(f"{path}: there is no such file") from problem
    except IsADirectoryError as problem:
        raise InputError(f"{path}: cannot be read: it is a folder; name a file in it") from problem
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise InputError(f"{path}: cannot be read ({reason})") from problem
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: is longer than {MOST_BYTES:,} bytes, which no file of settings is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: cannot be read as text; save it as UTF-8 ({problem})") from problem


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the mapping in a YAML file, with each override `key.path=value` applied in turn. Raises InputError."""
    # What an alias names is written out, so that an override reaches one place and not all that share an anchor.
    content = _written_out(parse_yaml(_text_of(path), str(path)))
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold keys and values, and holds {type(content).__name__}")
    for override in overrides:
        _override(content, override)
    return content


def _written_out(content: Any) -> Any:
    """The content with a copy of its own in every place of what an alias names."""
    match content:
        case dict():
            return {key: _written_out(value) for key, value in content.items()}
        case list():
            return [_written_out(value) for value in content]
    return content


def _override(content: dict[str, Any], override: str) -> None:
    """Sets one key of `content`, and creates the mappings above it that are missing or null."""
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: write key.path=value")
    *parents, last = key.split(".")
    section: Any = content
    for parent in parents:
        if isinstance(section, dict) and section.get(parent) is None:
            section[parent] = {}
        section = section[parent] if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise InputError(f"--set {override}: {'.'.join(parents)} holds no keys")
    section[last] = parse_yaml(value, f"--set {override}")


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that the loader would read as something else."""

    yaml_implicit_resolvers = _StrictLoader.yaml_implicit_resolvers


def dump_yaml(content: Any) -> str:
    """Returns YAML that `read_yaml` reads as the same content again."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False))
