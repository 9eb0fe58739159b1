"""Settings laid over others: a preset's over an experiment's, and a surrogate's own over both."""

from typing import Any

import pytest

from align_core.refinements import laid_over


@pytest.mark.parametrize(
    ("settings", "own", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": {"x": 1, "y": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"optimizer": {"name": "sgd", "lr": 1}}, {"optimizer": {"lr": 2}}, {"optimizer": {"name": "sgd", "lr": 2}}),
        ({"optimizer": {"name": "a", "lr": 1}}, {"optimizer": {"name": "b"}}, {"optimizer": {"name": "b", "lr": 1}}),
        ({"keep": {"name": "collect", "per_epoch": 4}}, {"keep": {"name": "ema"}}, {"keep": {"name": "ema"}}),
        ({"keep": {"name": "collect", "per_epoch": 4}}, {"keep": "last"}, {"keep": "last"}),
        (
            {"keep": {"name": "collect", "per_epoch": 4}},
            {"keep": {"per_epoch": 2}},
            {"keep": {"name": "collect", "per_epoch": 2}},
        ),
        ({"keep": "collect"}, {"keep": {"per_epoch": 2}}, {"keep": {"name": "collect", "per_epoch": 2}}),
        ({"update": {"name": "sam", "rho": 1}}, {"update": {"name": "sam"}}, {"update": {"name": "sam"}}),
    ],
)  # fmt: skip
def test_own_settings_win_and_parts_are_replaced_whole(settings: Any, own: Any, expected: Any) -> None:
    before = repr((settings, own))
    assert laid_over(settings, own) == expected
    assert repr((settings, own)) == before
