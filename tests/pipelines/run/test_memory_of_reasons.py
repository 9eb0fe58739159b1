"""The memory of the stage `reasons` in `witness plan`: against all tensors that live while a worker measures them."""

from pathlib import Path

from one_worker import measure
from reasons_by_hand import reasoned

from align_core.peak_memory import living_bytes
from pipelines.run.stage_memory import needs_of


def test_a_worker_holds_no_more_than_is_counted_and_not_much_less(tmp_path: Path) -> None:
    blueprint = reasoned(tmp_path, compute={"chunk": 12}).blueprint()
    needs = needs_of(blueprint, "cuda")["reasons"]
    assert {need.images for need in needs} == {8}
    counted = max((need.fixed or 0) + need.images * need.per_image for need in needs)
    blueprint.store.delete_folder("reasons")
    held = max(living_bytes(lambda: measure(blueprint)))
    assert 0.7 * counted <= held <= counted
