"""What an alignment did to the likeness to its witnesses, and what has to be said of it. Nothing here imports torch."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Likeness:
    """How like its witnesses a network is.

    Attributes:
        loss: the alignment loss, the mean over images.
        agreement: percent of images for which network and witness predict the same class, the mean over witnesses.
    """

    loss: float
    agreement: float


@dataclass(frozen=True)
class Effect:
    """What an alignment did.

    Attributes:
        images: number of training images, as they are, on which it was measured.
        before, after: how like its witnesses the network was before the first step, and with the weights that are kept.
    """

    images: int
    before: Likeness
    after: Likeness

    def line(self) -> str:
        """What it did, in words."""
        return (
            f"agreement with its witnesses {self.before.agreement:.1f} -> {self.after.agreement:.1f} %, alignment loss "
            f"{self.before.loss:.4g} -> {self.after.loss:.4g} (on {self.images:,} training images)"
        )

    def warning(self) -> str | None:
        """What has to be said of an alignment that did not work; None for one that did."""
        fell = self._agreement_fell()
        stayed = not self.after.loss < self.before.loss
        if not fell and not stayed:
            return None
        if not fell and self.before.agreement == 100:
            return (
                "this alignment found little to learn, because its loss did not fall, and network and witnesses agreed "
                f"on every training image before it: {self.line()}. Training images that none of them has seen, "
                "align.augment or a lower align.optimizer.lr are what to try"
            )
        what = "fewer predictions agree than before" if fell else "its loss did not fall"
        what += " and its loss did not fall" if fell and stayed else ""
        return (
            f"this alignment did not work, because {what}: {self.line()}. A lower align.optimizer.lr, "
            "some align.optimizer.warmup or more steps are what to try, and beside losses on features alone, which "
            "teach the classifier nothing, kl or align.label_weight"
        )

    def _agreement_fell(self) -> bool:
        """Whether the agreement fell by more than 1.96 standard errors of the paired difference, at their largest.

        Images that no longer agree are among those that disagree afterwards, and images that agree now among those that
        disagreed before, so that the sum of both counts, the variance of their difference, has a bound.
        """
        apart_before, apart_after = (self.images * (1 - own.agreement / 100) for own in (self.before, self.after))
        return apart_after - apart_before > 1.96 * math.sqrt(apart_before + apart_after)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a card has them."""
        return asdict(self)


def effect_from(stored: Any) -> Effect | None:
    """What `Effect.as_dict` returned, again; None for anything else."""
    try:
        return Effect(int(stored["images"]), Likeness(**stored["before"]), Likeness(**stored["after"]))
    except (TypeError, KeyError, ValueError):
        return None
