"""What an experiment took, summed up from times.csv and surrogates.csv."""

from pipelines.report.fine_tune_times import FINE_TUNE
from pipelines.report.tabled import Report


def cost_lines(report: Report) -> list[tuple[str, str]]:
    """Time and work by kind, a heading and what stands beside it. Times that were not measured here are left out."""
    made = [row for row in report.times if row["attack"] == FINE_TUNE]
    crafted = [row for row in report.times if row["attack"] != FINE_TUNE]
    lines = []
    if made:
        seconds, images = sum(row["seconds"] for row in made), sum(row["images"] for row in made)
        lines.append((f"making {len(made)} surrogates", f"{_duration(seconds)} for {images:,} training images"))
    passes = [
        (row["forward_passes"] or 0) + (row["backward_passes"] or 0)
        for row in report.surrogates
        if row["attack"] == "(all)" and row["forward_passes"] is not None
    ]
    if passes:
        every = sum(passes) * max((row["seeds"] for row in report.transfer), default=1)
        lines.append(("their passes", f"{every:,}, forward and backward, each of one image through one network"))
    if crafted:
        seconds, images = sum(row["seconds"] for row in crafted), sum(row["images"] for row in crafted)
        kinds = ", ".join(dict.fromkeys(row["worker"] for row in crafted))
        gradients = sum(row["images"] * (row["gradients"] or 0) for row in crafted)
        lines.append(("crafting", f"{_duration(seconds)} of workers ({kinds}) for {images:,} adversarial images"))
        lines.append(("its gradients", f"{gradients:,}, each of one image through one network"))
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
