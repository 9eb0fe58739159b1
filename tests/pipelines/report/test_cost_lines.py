"""What an experiment took, summed up."""

from typing import Any

from pipelines.report.cost import cost_lines
from pipelines.report.tabled import Report


def test_passes_are_those_of_all_seeds() -> None:
    def surrogate(name: str, forward: int | None, backward: int | None) -> Any:
        return {"surrogate": name, "attack": "(all)", "forward_passes": forward, "backward_passes": backward}

    about = [surrogate("source", None, None), surrogate("aligned", 100, 50), surrogate("lgv", 40, 40)]
    transfer: Any = [{"seeds": 3}]
    lines = dict(cost_lines(Report("", transfer, [], about, [], [], [])))
    assert lines["their passes"].startswith("690, ")
