"""What a training step was, and whether the training has diverged with it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from align_core.losses.seen import Seen


class NonFiniteLoss(FloatingPointError):
    """The loss or its gradient is infinite or NaN: the training has diverged, and its weights must not be used.

    Attributes:
        reason: what happened, as a sentence without names.
        witness: number of the witness whose logits were not finite, if that was the cause; None otherwise.
        rows: positions in the batch of the images on which they were not.
        step: number of the step at which it happened; None where it was not at a step.
    """

    def __init__(
        self, reason: str, witness: int | None = None, rows: Sequence[int] = (), step: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.witness, self.rows, self.step = reason, witness, tuple(rows), step

    def __reduce__(self) -> tuple[type["NonFiniteLoss"], tuple[str, int | None, tuple[int, ...], int | None]]:
        return type(self), (self.reason, self.witness, self.rows, self.step)  # otherwise rebuilt from its message


class Taken(NamedTuple):
    """One step that was taken: its number, learning rate and images, and its values, which a GPU may still compute."""

    number: int
    lr: float
    images_BCHW: Tensor
    values: dict[str, Tensor]


def diverged(taken: Taken, loss: float, taught: Callable[[Tensor], Sequence[Seen]]) -> NonFiniteLoss:
    """Why the gradient of a step is not finite.

    Args:
        loss: its value.
        taught: returns what each teacher makes of images.
    """
    for number, own in enumerate(taught(taken.images_BCHW)):
        rows = (~own.logits_BK.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
        if rows:
            reason = f"a witness returned logits that are not finite at step {taken.number}"
            return NonFiniteLoss(reason, number, rows, taken.number)
    advice = "lower align.optimizer.lr, or set align.clip_grad_norm"
    if not taken.number:  # then no step has been taken yet, whatever its length
        advice = "check the temperature, the weights of the losses, mean and std"
    reason = f"the loss is {loss:g} and its gradient is not finite at step {taken.number}: {advice}"
    return NonFiniteLoss(reason, step=taken.number)
