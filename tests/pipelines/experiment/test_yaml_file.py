"""YAML files are read as they look: numbers and text, keys that are given once, and `--set` over the file."""

import math
from pathlib import Path
from typing import Any

import pytest

from align_core.errors import InputError
from pipelines.experiment.yaml_file import parse_yaml, read_yaml


def read(tmp_path: Path, text: str, *overrides: str) -> dict[str, Any]:
    (tmp_path / "e.yaml").write_text(text, encoding="utf-8")
    return read_yaml(tmp_path / "e.yaml", overrides)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *((text, float(text)) for text in ("1e-3", "1E-3", "+1e3", "-2.5e-4", "1.e5", "1.", ".5", "-.5", "0.0", "1.5")),
        *((text, int(text)) for text in ("0", "7", "-7", "+7", "255", "1_000")),
        *((text, text) for text in ("4/255", "0.5/255", "3d", "1e", "e5", "1.2.3", "1-2", ".", "1e5x", "resnet20")),
        *((f"'{text}'", text) for text in ("1e-3", "7", "null", "no")),
        *((text, text) for text in ("2026-11-22", "2026-11-22 10:30:00")),
        *((text, None) for text in ("", "~", "null")),
        ("0x1F", 31),
        (".inf", math.inf),
        ("true", True),
        ("[1, 1e-3, a]", [1, 1e-3, "a"]),
        ("{lr: 2e-3, steps: 10}", {"lr": 2e-3, "steps": 10}),
    ],
)  # fmt: skip
def test_the_type_of_a_value(written: str, value: Any) -> None:
    read = parse_yaml(written, "here")
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' is given twice"),
        ("a: 1\n'a': 3\n", 2, "the key 'a' is given twice"),
        ("a: {b: 1,\n b: 1}\n", 2, "the key 'b' is given twice"),
        ("a:\n  - c: 1\n  - c: 1\n    d: 1\n    c: 2\n", 5, "the key 'c' is given twice"),
        ("20: 1\n20: 2\n", 1, "the key 20 is read as a number; put it in quotes: '20'"),
        ("? [a]\n: 1\n", 1, "a key must be a word"),
        ("a: 1\nb: {c: s3://b/d?region=e}\n", 2, "but got '?'; put an address with ? in quotes"),
        ("a:\n  ~: 1\n", 2, "a key must be a word"),
        ("a: 1\nb: *a\n", 2, "undefined alias"),
        ("a:\n  <<: 3\n", 2, "expected a mapping"),
        ("a: 1\non: 1\n", 2, "the key on is read as yes or no; put it in quotes: 'on'"),
        ("a: !!binary aGVsbG8=\n", 1, "the tag !!binary is not known here"),
        ("a: !!set {x}\n", 1, "the tag !!set is not known here"),
        ("a: !!int abc\n", 1, "abc is no number"),
        ("a: 1\nb: " + "1" * 5000 + "\n", 2, "111111111111111111111111111111... (5000 signs) is too large a number"),
        ("a: 1\nb: 1e400\n", 2, "1e400 is too large a number"),
        ("a: 9223372036854775808\n", 1, "is too large a number"),
        ("a: [010, 100]\n", 1, "YAML reads 010 in another base"),
        ("a: 1:30\n", 1, "YAML reads 1:30 in another base"),
        ("a: &a [*a]\n", 1, "what this anchor names contains itself"),
        ("a: &a\n  b: {c: *a}\n", 1, "what this anchor names contains itself"),
        ("a: " + "[" * 3000 + "]" * 3000, 1, "more than 50 levels are nested here"),
        ("- " * 3000 + "a\n", 1, "more than 50 levels are nested here"),
        ("a: 1\nb: x\0y\n", 2, "the sign U+0000 is not allowed"),
        ('a: "x\\0y"\n', 1, "this text holds a sign that no name or path can have"),
        ('a: "\\ud800"\n', 1, "this text holds a sign that no name or path can have"),
        ("a:\n\tb: 1\n", 2, "a tab stands here; indent, and separate, with spaces"),
        ("a:\tb\n", 1, "a tab stands here; indent, and separate, with spaces"),
        ("a: `b`\n", 1, "found character '`' that cannot start any token"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("a: !!python/object/apply:os.getcwd []\n", 1, "the tag !!python/object/apply:os.getcwd is not known here"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        read(tmp_path, text)
    assert str(refusal.value).startswith(f"{tmp_path / 'e.yaml'}, line {line}: ")
    assert message in str(refusal.value)


def test_equal_keys_in_different_mappings_are_not_duplicates(tmp_path: Path) -> None:
    text = "a: {x: 1}\nb: {x: 2}\nc: [{x: 3}, {x: 4}]\n"
    assert read(tmp_path, text) == {"a": {"x": 1}, "b": {"x": 2}, "c": [{"x": 3}, {"x": 4}]}


def test_an_override_reaches_its_own_place_and_not_all_that_share_an_anchor(tmp_path: Path) -> None:
    text = "a: &a {train: {epochs: 3}, mean: [1, 2]}\nb: {<<: *a, x: 1}\nc: *a\n"
    content = read(tmp_path, text, "b.train.epochs=7")
    assert [content[name]["train"] for name in "abc"] == [{"epochs": 3}, {"epochs": 7}, {"epochs": 3}]


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = """
base: &base {x: 1, y: 1}
more: &more {z: 1}
deep: {er: &own {<<: *base, x: 2}}  # its own x counts
late: {<<: [*own, *more], y: 3}
twice: {<<: *base, <<: *more}
same: *base
"""
    content = read(tmp_path, text)
    assert content["deep"] == {"er": {"x": 2, "y": 1}}
    assert content["late"] == {"x": 2, "y": 3, "z": 1}
    assert content["twice"] == {"x": 1, "y": 1, "z": 1}
    assert content["same"] == content["base"] == {"x": 1, "y": 1}


def test_text_in_every_language(tmp_path: Path) -> None:
    assert read(tmp_path, "path: Bücher/猫\n") == {"path": "Bücher/猫"}


TEXT = "seed: 1\nalign: {epochs: 2, optimizer: {lr: 1}}\ntargets: [a, b]\nvariants:\n"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["seed=2"], {"seed": 2}),
        (["seed=2", "seed=3"], {"seed": 3}),
        (["align.optimizer.lr=1e-3"], {"align": {"epochs": 2, "optimizer": {"lr": 1e-3}}}),
        (["align.optimizer={name: adamw}"], {"align": {"epochs": 2, "optimizer": {"name": "adamw"}}}),
        (["align.clip_grad_norm=null"], {"align": {"epochs": 2, "optimizer": {"lr": 1}, "clip_grad_norm": None}}),
        (["compute.resources.mock=1"], {"compute": {"resources": {"mock": 1}}}),
        (["variants.v.align.epochs=3"], {"variants": {"v": {"align": {"epochs": 3}}}}),
        (["targets=[c, d]"], {"targets": ["c", "d"]}),
        (["targets="], {"targets": None}),
        (["tracking=http://host/?a=b&c=d"], {"tracking": "http://host/?a=b&c=d"}),
        (["name='2'"], {"name": "2"}),
        (["attacks.pgd.eps=4/255"], {"attacks": {"pgd": {"eps": "4/255"}}}),
        ([], {}),
    ],
)
def test_set_replaces_values_of_the_file(tmp_path: Path, overrides: list[str], expected: dict[str, Any]) -> None:
    assert read(tmp_path, TEXT, *overrides) == read(tmp_path, TEXT) | expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "write key.path=value"),
        ("=3", "write key.path=value"),
        ("align..epochs=3", "write key.path=value"),
        ("seed.x=3", "seed holds no keys"),
        ("targets.0=c", "targets holds no keys"),
        ("align={epochs: 1, epochs: 2}", "given twice"),
        ("align=[1", "expected"),
    ],
)
def test_a_malformed_set_is_reported(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        read(tmp_path, TEXT, override)
    assert str(refusal.value).startswith(f"--set {override}")
    assert message in str(refusal.value)


LISTS = "b0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
MERGES = "b0: &a0 {x: 1}\n" + "".join(f"b{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}\n" for i in range(1, 30))
CHAIN = "b0: &a0 [x]\n" + "".join(f"b{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))


@pytest.mark.parametrize(
    ("text", "message"),
    [(LISTS, "more than 100,000 values"), (MERGES, "more than 100,000 values"), (CHAIN, "more than 50 levels")],
)
def test_aliases_that_multiply_are_refused_before_they_are_written_out(text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"^e, line \d+: with its aliases this is {message}$"):
        parse_yaml(text, "e")


def test_aliases_that_do_not_multiply_are_understood(tmp_path: Path) -> None:
    text = "a: &a {k: 1, l: &l [1, 2]}\nb: {<<: *a, m: *l}\nc: [*l, *l]\n"
    assert read(tmp_path, text) == {
        "a": {"k": 1, "l": [1, 2]}, "b": {"k": 1, "l": [1, 2], "m": [1, 2]}, "c": [[1, 2], [1, 2]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff\n", "cannot be read as text; save it as UTF-8"),
        ("a: 1\n".encode("utf-16"), "cannot be read as text; save it as UTF-8"),
        (b"a: 1\n" * 300_000, "is longer than 262,144 bytes"),
    ],
)
def test_a_file_that_is_no_text_or_far_too_long(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "e.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_yaml(tmp_path / "e.yaml")


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(InputError, match="/dev/zero: is longer than"):
        read_yaml(Path("/dev/zero"))


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "e.yaml") == {"a": 1}


@pytest.mark.parametrize("value", ["&a [*a]", "[" * 3000, "1" * 5000, "1e400", "!!set {x}", "x\0", "a: {1: 2}"])
def test_settings_of_the_command_line_are_read_as_strictly(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError, match=r"^--set a="):
        read(tmp_path, "b: 1\n", f"a={value}")
