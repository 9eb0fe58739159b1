"""What is said of a worker's exception is what happened, not what Ray wraps around it."""

from typing import Any

import pytest

from pipelines.failure import reason_of


def test_a_task_that_breaks_off(ray_cluster: None) -> None:
    import ray

    def break_off(row: dict[str, Any]) -> dict[str, Any]:  # here, so that it is sent by value
        raise OSError(f"no way to item {row['item']}")

    with pytest.raises(ray.exceptions.RayError) as broken:
        list(ray.data.from_items([1]).map(break_off).iter_rows())
    assert reason_of(broken.value) == "OSError: no way to item 1"


@pytest.mark.parametrize(
    ("problem", "reason"),
    [(OSError("the disk is full"), "the disk is full"), (ValueError(), "ValueError"), (OSError("a\nb\n"), "b")],
)
def test_one_of_this_process(problem: Exception, reason: str) -> None:
    assert reason_of(problem) == reason
