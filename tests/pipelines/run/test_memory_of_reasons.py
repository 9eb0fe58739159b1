"""The memory of the stage `reasons` in `witness plan`: against what a worker holds while it measures them."""

from pathlib import Path

from one_worker import measure
from reasons_by_hand import reasoned

from align_core.peak_memory import living_bytes
from pipelines.run.stage_memory import needs_of


def test_a_worker_holds_no_more_than_is_counted_and_not_much_less(tmp_path: Path) -> None:
    blueprint = reasoned(tmp_path, compute={"chunk": 12}).blueprint()
    own = max(
        need.fixed + need.images * need.per_image for need in needs_of(blueprint, "cpu", False)["reasons"] if need.fixed
    )
    peak = max(living_bytes(lambda: measure(blueprint)))
    print(peak, own, peak / own)
    assert 0.6 * own <= peak <= own
