"""YAML as Witness reads it: duplicate keys are refused, `1e-3` is a number, `--set key.path=value` is laid over it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from align_core.errors import InputError

_TAG = "tag:yaml.org,2002:"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # As it is written: later, `<<` puts the keys of other mappings among a mapping's own.
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}null":
                raise yaml.composer.ComposerError(None, None, "a key must be a word", key.start_mark)
            if (key.tag, key.value) in seen and key.tag != f"{_TAG}merge":
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node


# YAML 1.1 takes `1e-3` for a string: it wants a dot and a signed exponent.
_StrictLoader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)
# A date stays the word that it was written as.
for _resolvers in _StrictLoader.yaml_implicit_resolvers.values():
    _resolvers[:] = [entry for entry in _resolvers if entry[0] != f"{_TAG}timestamp"]


def parse_yaml(text: str, origin: str) -> Any:
    """The content of one YAML text. Raises InputError that names `origin` and the line."""
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as problem:
        line = f", line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
        raise InputError(f"{origin}{line}: {problem.problem or problem.context}") from problem
    except yaml.YAMLError as problem:
        raise InputError(f"{origin}: not YAML ({problem})") from problem


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, with each `key.path=value` laid over it. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path}: cannot be read ({problem})") from problem
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold keys and values, and holds {type(content).__name__}")
    for override in overrides:
        _lay_over(content, override)
    return content


def _lay_over(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: write key.path=value")
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        if isinstance(place, dict) and place.get(parent) is None:
            place[parent] = {}
        place = place[parent] if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise InputError(f"--set {override}: {'.'.join(parents)} holds no keys")
    place[last] = parse_yaml(value, f"--set {override}")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid upon `base`, mappings within mappings merged likewise."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


class _Dumper(yaml.SafeDumper):
    """Quotes the words that the loader would take for something else."""

    yaml_implicit_resolvers = _StrictLoader.yaml_implicit_resolvers


def written(content: Any) -> str:
    """YAML that `read_yaml` reads as the same content again."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False))
