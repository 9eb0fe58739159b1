"""Attacks of the package torchattack, which is imported here and nowhere else, and only when one is asked for."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from align_core.attacks.foreign_config import ForeignConfig, package_version
from align_core.errors import InputError
from align_core.own_code import own_code

# Of those that torchattack has, the attacks that another argument, or another network, would be needed for.
_REFUSED = {
    "DeepFool": "it has no radius, and keeps to no ball",
    "GeoDA": "it has no radius, and keeps to no ball",
    "SSP": "it downloads a VGG-16",
}
_IN_L2 = ("PGDL2",)


def torchattack_attack(attack: ForeignConfig) -> "TorchattackAttack":
    """The attack that `attack.name` names. Raises InputError where there is none that can be run here."""
    package_version(attack.kind)
    with own_code("importing torchattack"):
        from torchattack import ATTACK_REGISTRY
    if attack.name not in ATTACK_REGISTRY:
        lower = {name.lower(): name for name in ATTACK_REGISTRY}
        close = difflib.get_close_matches(attack.name.lower(), lower, n=1, cutoff=0.5)
        mend = f"did you mean {lower[close[0]]!r}?" if close else f"there are {', '.join(sorted(ATTACK_REGISTRY))}"
        raise InputError(f"torchattack has no attack {attack.name!r}; {mend}")
    found = TorchattackAttack(attack, ATTACK_REGISTRY[attack.name])
    found.check()
    return found


class TorchattackAttack:
    """One attack of torchattack and its settings."""

    def __init__(self, attack: ForeignConfig, constructor: Any) -> None:
        self.attack, self.constructor = attack, constructor
        self.takes = list(inspect.signature(constructor).parameters)

    def check(self) -> None:
        """Raises InputError where the attack cannot be run here, or does not have one of the settings."""
        attack, name = self.attack, f"torchattack's {self.attack.name}"
        reason = _REFUSED.get(attack.name)
        if self.constructor.is_category("GENERATIVE"):
            reason = "it downloads a generator, and does not attack the surrogate"
        elif "hook_cfg" in self.takes:
            reason = "it looks for layers by the names that they have in particular networks"
        if reason:
            raise InputError(f"{name} cannot be used: {reason}")
        norm = "l2" if attack.name in _IN_L2 else "linf"
        own = [
            key
            for key in self.takes
            if key not in ("model", "normalize", "device", "eps", "steps", "alpha", "targeted")
        ]
        wrong = [
            (attack.norm != norm, f"keeps to the {norm} ball; set norm: {norm}"),
            (attack.is_targeted and "targeted" not in self.takes, "cannot lead towards a class; set towards: away"),
            ("steps" not in self.takes and attack.steps != 1, "takes one step; set steps: 1"),
            ("alpha" not in self.takes and attack.step != attack.eps, "steps as far as eps; leave out step"),
            ("num_classes" in self.takes and "num_classes" not in attack.args, _NO_CLASSES),
            (self.needs_layer and not attack.args.get("feature_layer_cfg"), _NO_LAYER),
        ]
        for is_wrong, message in wrong:
            if is_wrong:
                raise InputError(f"{name} {message}")
        for key in attack.args:
            if key not in own:
                raise InputError(f"{name} has no argument {key!r}; args may have {', '.join(own)}")

    @property
    def needs_layer(self) -> bool:
        """Whether the attack looks at a layer inside the surrogate."""
        return "feature_layer_cfg" in self.takes

    def runner(self, surrogate: nn.Module, device: torch.device, **instead: Any) -> Callable[..., Any]:
        """A function of pixels, labels and classes to lead to; `instead` has settings that replace the attack's."""
        from torchattack import create_attack

        attack = self.attack
        numbers = {"steps": attack.steps, "alpha": attack.step, "targeted": attack.is_targeted} | instead
        settings = {key: value for key, value in numbers.items() if key in self.takes} | attack.args
        # Such attacks take gradients with respect to features of images that need none themselves.
        surrogate.requires_grad_(self.needs_layer)
        made = create_attack(attack.name, surrogate, device=device, eps=attack.eps, **settings)

        def run(pixels_BCHW: Tensor, labels_B: Tensor, wanted_B: Tensor | None) -> Any:
            return made(pixels_BCHW, labels_B if wanted_B is None else wanted_B)

        return run

    def try_on(self, shape: tuple[int, int, int], classes: int) -> None:
        """Runs one step on two images of this shape and a tiny network, which has no layers to look at.

        Raises InputError where the attack breaks off: some take images of one size alone, or need another package.
        """
        if self.needs_layer:
            return
        with own_code(f"torchattack's {self.attack.name}, tried on images of {' x '.join(map(str, shape))} values,"):
            torch.manual_seed(0)
            channels = shape[0]
            net = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
            labels_B = torch.tensor([0, 1])
            with torch.enable_grad():
                run = self.runner(net, torch.device("cpu"), steps=1)
                run(torch.rand(2, *shape), labels_B, labels_B + 1 if self.attack.is_targeted else None)


_NO_CLASSES = "takes images for those of ImageNet; set args: {num_classes: ...} to the number of classes"
_NO_LAYER = (
    "looks at a layer of the surrogate; name it in args, such as feature_layer_cfg: net.layer2, and see that the "
    "surrogates have it"
)
