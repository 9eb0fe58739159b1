"""What differs between two results is said by the names of settings."""

from typing import Any

import pytest

from pipelines.storage.differences import differences

WAS: dict[str, Any] = {
    "stage": "align",
    "revision": 1,
    "seed": 0,
    "settings": {"temperature": 4.0, "optimizer": {"lr": 0.001}, "clip_grad_norm": None, "augment": {"crop": "pad4"}},
    "images": "abc",
    "source": {"weights": "w1", "architecture": "r18", "preprocessing": [None], "code": {"nets": "1", "layers": "2"}},
    "witnesses": [{"weights": "w2", "architecture": "r34"}, {"weights": "w3", "architecture": "r50"}],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    import copy

    now = copy.deepcopy(WAS)
    *parents, key = path.split("/")
    inner: Any = now
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    inner[key] = value
    return now


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("settings/temperature", 16.0, "temperature was 4.0, is 16.0"),
        ("settings/optimizer/lr", 0.1, "optimizer.lr was 0.001, is 0.1"),
        ("settings/clip_grad_norm", 1.0, "clip_grad_norm was not set, is 1.0"),
        ("seed", 5, "seed was 0, is 5"),
        ("new_key", 5, "new_key was not set, is 5"),
        ("revision", 2, "another revision of Witness"),
        ("images", "xyz", "other images"),
        ("source/weights", "w9", "other weights of the source"),
        ("source/preprocessing", [1.0], "other preprocessing of the source"),
        ("source/code/layers", "9", "other code of layers of the source"),
        ("witnesses/1/weights", "w9", "other weights of the witnesses 2"),
    ],
)
def test_each_kind_of_difference_is_named(path: str, value: Any, said: str) -> None:
    assert differences(WAS, changed(path, value)) == said


def test_models_of_a_list_are_named_where_their_names_are_known() -> None:
    names = {"witnesses": ["resnet34", "resnet50"]}
    for path, value, said in (
        ("witnesses/1/weights", "w9", "other weights of the model resnet50"),
        ("witnesses/0/architecture", "r18", "another architecture of the model resnet34"),
        ("witnesses", WAS["witnesses"] + [{"weights": "w4"}], "other weights of the witnesses 3"),  # nobody knows whose
    ):
        assert differences(WAS, changed(path, value), names) == said


def test_models_of_several_lists() -> None:
    was, now = ({"models": [[{"weights": "a"}, {"weights": "b"}], [{"weights": last}]]} for last in "cd")
    assert differences(was, now) == "other weights of the models 3"
    assert differences(was, now, {"models": ["near", "other", "twin"]}) == "other weights of the model twin"


def test_many_are_counted() -> None:
    now = {**WAS, "seed": 1, "images": "z", "revision": 2, "stage": "x", "witnesses": []}
    assert differences(WAS, now).startswith("stage was align, is x, another revision of Witness, seed was 0, is 1 and ")


@pytest.mark.parametrize("was", [None, {}, [], "text", 5])
def test_of_a_damaged_record_nothing_is_known(was: Any) -> None:
    assert differences(was, WAS) == ""


def test_equal_inputs_do_not_differ_after_a_round_trip_through_json() -> None:
    import json

    assert differences(json.loads(json.dumps({"a": (1, 2)})), {"a": (1, 2)}) == ""


def test_a_tuple_is_the_list_that_a_file_has_of_it() -> None:
    now = changed("source/preprocessing", [(0.5, 0.5), None])
    was = changed("source/preprocessing", [[0.5, 0.5], None])
    assert differences(was, now) == ""
    assert differences(was, changed("source/preprocessing", [(0.5, 0.4), None])) == "other preprocessing of the source"
