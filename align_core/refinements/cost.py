"""What a refinement costs: passes through networks, and how many networks it leaves. Nothing here imports torch."""

from typing import NamedTuple

from align_core.align_config import AlignConfig
from align_core.refinements.parts import networks_are_several


class Passes(NamedTuple):
    """Passes through networks for each image of a step, or of all steps: those of the source and its teachers alike.

    A pass back is counted once, whatever it computes: through a network with its parameters, or to the pixels alone.
    """

    forward: int
    backward: int

    def times(self, number: int) -> "Passes":
        """The passes of this many images, if these are the passes of one."""
        return Passes(self.forward * number, self.backward * number)

    @property
    def total(self) -> int:
        """Both together: budgets are compared by it."""
        return self.forward + self.backward


def passes_per_image(align: AlignConfig, witnesses: int) -> Passes:
    """What one step costs for each of its images; `witnesses` is the number of witnesses."""
    teachers = (witnesses if align.teacher == "witnesses" else 1) if align.weight else 0
    perturbing = 0 if isinstance(align.inputs, str) else int(align.inputs.get("steps", 0))
    forward, backward = 1 + teachers, 1
    for term in align.terms:
        if term["name"] == "input_gradient":
            more = (1, 2)
        elif term["name"] == "score_matching":
            more = (1, 3)
        else:
            # The teachers on clean images and on those that were made, and the source at each step and on the latter.
            more = (2 * teachers + term["steps"] + 1, term["steps"] + 1)
        forward, backward = forward + more[0], backward + more[1]
    rounds = 1 if align.update == "plain" else 2
    return Passes(perturbing + rounds * forward, perturbing + rounds * backward)


def networks_kept(align: AlignConfig, images: int) -> int:
    """How many networks a refinement leaves after its steps over a training set of `images` images."""
    if isinstance(align.keep, str) or not networks_are_several(align.keep):
        return 1
    if align.keep["name"] == "swag":
        return int(align.keep["samples"])
    batch = min(align.batch_size, images // align.workers * align.workers)
    steps_per_epoch, per_epoch = images // batch, int(align.keep["per_epoch"])
    return max(1, align.steps(images) * min(per_epoch, steps_per_epoch) // steps_per_epoch)
