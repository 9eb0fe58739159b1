"""AutoAttack (Croce and Hein 2020, 2003.01690) of the package pyautoattack, which is imported here and nowhere else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from align_core.attacks.foreign_config import ForeignConfig, package_version
from align_core.errors import InputError
from align_core.own_code import own_code

VERSIONS = ("standard", "plus", "rand")
"""Several attacks one after the other, each on the images that have withstood those before it."""

_LEAST_CLASSES = {"standard": 4, "plus": 4, "apgd-t": 4, "rand": 3, "apgd-dlr": 3}
_NORMS = {"linf": "Linf", "l2": "L2"}


def check_autoattack(attack: ForeignConfig, classes: int) -> None:
    """Raises InputError where the package is not there, does not have one of the settings, or needs more classes.

    The difference of logits ratio, one of its losses, needs the third largest logit, and towards a class the fourth.
    """
    package_version(attack.kind)
    with own_code("importing pyautoattack"):
        import pyautoattack  # noqa: F401
    wrong = [
        (attack.is_targeted, "cannot lead towards a class; set towards: away"),
        (attack.steps != 10 or attack.step != attack.eps / 10, "has steps of its own; leave out steps and step"),
        (bool(attack.args), "has no further arguments; leave out args"),
    ]
    for is_wrong, message in wrong:
        if is_wrong:
            raise InputError(f"{attack.method} {message}")
    least = _LEAST_CLASSES.get(attack.name, 2)
    if classes < least:
        raise InputError(
            f"{attack.method} needs at least {least} classes, and there are {classes}; autoattack:apgd-ce, "
            "autoattack:fab and autoattack:square need two"
        )


def autoattack_runner(attack: ForeignConfig, surrogate: nn.Module, device: torch.device) -> Callable[..., Any]:
    """A function of pixels, labels and (without meaning here) classes to lead to.

    All numbers are the package's own, but for the classes that its targeted parts lead to: nine, or all others where
    there are fewer. An image that withstands all parts is returned as it was.
    """
    from pyautoattack import AutoAttack

    surrogate.requires_grad_(False)

    def run(pixels_BCHW: Tensor, labels_B: Tensor, wanted_B: Tensor | None) -> Any:
        is_version = attack.name in VERSIONS
        made = AutoAttack(
            surrogate,
            device=device,
            eps=attack.eps,
            norm=_NORMS[attack.norm],
            seed=int(torch.randint(2**31, ())),
            version=attack.name if is_version else "custom",
            attacks=None if is_version else [attack.name],
        )
        with torch.no_grad():
            others = surrogate(pixels_BCHW[:1]).shape[1] - 1
        for part in (made.apgd_targeted, made.fab):
            part.n_target_classes = min(9, others)
        if not is_version:  # as in the standard version
            made.apgd.n_restarts = made.fab.n_restarts = 1
        adversarial_BCHW, _ = made.run_standard_evaluation(pixels_BCHW, labels_B, batch_size=len(pixels_BCHW))
        return adversarial_BCHW

    return run
