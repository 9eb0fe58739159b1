"""Reads and writes YAML. Unlike PyYAML by itself, it refuses duplicate keys and reads `1e-3` as a number.

Settings of the command line, `--set key.path=value`, replace those of a file here.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from align_core.errors import InputError

_TAG = "tag:yaml.org,2002:"


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key that is given twice in a mapping."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Checked before `<<` is resolved, which adds the keys of other mappings to a mapping's own.
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}null":
                raise yaml.composer.ComposerError(None, None, "a key must be a word", key.start_mark)
            if (key.tag, key.value) in seen and key.tag != f"{_TAG}merge":
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node


# In YAML 1.1 `1e-3` is a string, because a float needs a dot and a signed exponent.
_StrictLoader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)
# Dates stay strings: no key takes a date.
for _resolvers in _StrictLoader.yaml_implicit_resolvers.values():
    _resolvers[:] = [entry for entry in _resolvers if entry[0] != f"{_TAG}timestamp"]


def parse_yaml(text: str, origin: str) -> Any:
    """Returns the content of a YAML text. Raises InputError, which names `origin` and the line."""
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as problem:
        line = f", line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
        raise InputError(f"{origin}{line}: {problem.problem or problem.context}") from problem
    except yaml.YAMLError as problem:
        raise InputError(f"{origin}: this is not valid YAML ({problem})") from problem


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the mapping in a YAML file, with each override `key.path=value` applied in turn. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path}: cannot be read ({problem})") from problem
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold keys and values, and holds {type(content).__name__}")
    for override in overrides:
        _override(content, override)
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


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with the values of `over` in place of its own; mappings within them are merged likewise."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that the loader would read as something else."""

    yaml_implicit_resolvers = _StrictLoader.yaml_implicit_resolvers


def dump_yaml(content: Any) -> str:
    """Returns YAML that `read_yaml` reads as the same content again."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False))
