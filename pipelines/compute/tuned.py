"""What a fine-tune ends with, and how it is handed on in files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from align_core.effect import Effect, effect_from
from pipelines.compute.checkpoint import Curve, read_checkpoint

_ABOUT = "about.json"
_MEASURED = {"agreement": "agreement with its witnesses", "gain": "transfer rate"}


@dataclass(frozen=True)
class Stopped:
    """What came of an early stop.

    Attributes:
        by: what was measured, `agreement` or `gain`.
        checks: step and value, in percent, of every check.
        steps, total: how many steps were taken, and how many there would have been.
    """

    by: str
    checks: list[tuple[int, float]]
    steps: int
    total: int

    def line(self) -> str:
        """What came of it, in words."""
        step, value = max(self.checks, key=lambda check: check[1])
        ended = f", and it ended after step {self.steps}" if self.steps < self.total else ""
        return (
            f"kept are the weights of step {step} of {self.total}, with {value:.1f} % {_MEASURED[self.by]} on "
            f"validation images{ended}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a card has them."""
        return asdict(self)


class Tuned(NamedTuple):
    """What a fine-tune ends with.

    Attributes:
        weights: of every network that it leaves, the content of a .safetensors file.
        curve: a row per step.
        effect: what it did to the likeness to its witnesses; None without any, or where that is not known.
        stopped: what came of its early stop, if it had one.
    """

    weights: list[bytes]
    curve: Curve
    effect: Effect | None = None
    stopped: Stopped | None = None


def write_networks(found: Tuned, folder: Path) -> None:
    """Adds the networks that are kept, and what is said of them, to a checkpoint."""
    for number, own in enumerate(found.weights):
        (folder / f"network-{number:04}.safetensors").write_bytes(own)
    about = {
        "effect": None if found.effect is None else found.effect.as_dict(),
        "stopped": None if found.stopped is None else found.stopped.as_dict(),
    }
    (folder / _ABOUT).write_text(json.dumps(about))


def from_checkpoint(folder: Path) -> Tuned:
    """What a fine-tune ended with, from a checkpoint to which `write_networks` added it. Raises DamagedCheckpoint."""
    _, curve = read_checkpoint(folder)
    weights = [path.read_bytes() for path in sorted(folder.glob("network-*.safetensors"))]
    about = json.loads((folder / _ABOUT).read_text()) if (folder / _ABOUT).exists() else {}
    stopped = about.get("stopped")
    if stopped is not None:
        stopped = Stopped(**{**stopped, "checks": [(step, value) for step, value in stopped["checks"]]})
    return Tuned(weights, curve, effect_from(about.get("effect")), stopped)
