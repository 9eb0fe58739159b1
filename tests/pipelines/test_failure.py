"""The reason that is reported for an exception from a Ray worker is what happened, without Ray's wrapping around it."""

from typing import Any

import pytest

from align_core.errors import reason_of


def test_a_task_that_breaks_off(ray_cluster: None) -> None:
    import ray

    def break_off(row: dict[str, Any]) -> dict[str, Any]:  # a local function, so that Ray sends it by value
        raise OSError(f"no way to item {row['item']}")

    with pytest.raises(ray.exceptions.RayError) as broken:
        list(ray.data.from_items([1]).map(break_off).iter_rows())
    assert reason_of(broken.value) == "OSError: no way to item 1"
