"""AutoAttack: what it makes, what it is refused for, and the same images withstand it as in a second implementation."""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from attack_setting import EPS, Setting
from torch import Tensor, nn

from align_core.attacks import AttackConfig, ForeignConfig, craft
from align_core.attacks.foreign import check_foreign
from align_core.attacks.loop import distances
from align_core.errors import InputError
from align_core.model_config import ModelConfig
from align_core.models import load

SHAPE = (3, 20, 20)


def auto(version: str, **settings: Any) -> ForeignConfig:
    return ForeignConfig(method=f"autoattack:{version}", **{"eps": EPS, **settings})


def withstand(setting: Setting, images: Tensor) -> Tensor:
    with torch.no_grad():
        return setting.net(images / 255).argmax(dim=1) == setting.labels


@pytest.fixture
def easy(small: Setting) -> Setting:
    """The small network, and the labels that it gives to its images."""
    with torch.no_grad():
        labels = small.net(small.images / 255).argmax(dim=1)
    return Setting(small.net, small.images, labels)


@pytest.mark.parametrize(("version", "norm"), [("apgd-ce", "linf"), ("apgd-dlr", "linf"), ("apgd-ce", "l2")])
def test_images_lie_in_the_ball_and_those_that_withstand_are_as_they_were(
    easy: Setting, version: str, norm: str
) -> None:
    attack = auto(version, eps=2 / 255 if norm == "linf" else 0.3, norm=norm)
    made, again = (easy.craft(attack) for _ in range(2))
    assert torch.equal(made, again)
    furthest = distances(made, easy.images)[0 if norm == "linf" else 1]
    assert furthest.max() <= attack.eps + 1e-6
    still = (made == easy.images).flatten(1).all(dim=1)
    assert withstand(easy, made)[still].all() and not still.all()
    assert not withstand(easy, made)[~still].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": "strong"}, "method must be written as autoattack:VERSION, which is standard, plus or rand"),
        ({"steps": 20}, "has steps of its own; leave out steps and step"),
        ({"step": 0.001}, "has steps of its own; leave out steps and step"),
        ({"towards": "next"}, "cannot lead towards a class"),
        ({"args": {"eps_iter": 1}}, "has no further arguments"),
        ({"classes": 3}, "needs at least 4 classes, and there are 3; autoattack:apgd-ce"),
        ({"version": "rand", "classes": 2}, "needs at least 3 classes, and there are 2"),
    ],
)
def test_settings_that_it_does_not_have(settings: dict[str, Any], message: str) -> None:
    classes = settings.pop("classes", 10)
    with pytest.raises((InputError, ValueError), match=message):
        check_foreign(auto(settings.pop("version", "standard"), **settings), SHAPE, classes)


@pytest.mark.parametrize(("version", "classes"), [("standard", 4), ("rand", 3), ("square", 2)])
def test_as_many_classes_as_its_losses_need_are_enough(version: str, classes: int) -> None:
    check_foreign(auto(version), SHAPE, classes)


class FirstFour(nn.Module):
    """The first four classes of a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits[:, :4]


def test_it_leads_to_as_many_classes_as_there_are(small: Setting) -> None:
    net = FirstFour(small.net)
    with torch.no_grad():
        labels = net(small.images / 255).argmax(dim=1)
    few = Setting(net, small.images, labels, 4)
    assert not withstand(few, few.craft(auto("apgd-t"))).all()


def test_without_the_package_it_is_named_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("align_core.attacks.foreign_config.version", missing)
    with pytest.raises(InputError, match=r"pyautoattack is not installed; `pip install '\.\[autoattack\]'`"):
        check_foreign(auto("standard"), SHAPE, 10)


def test_its_steps_are_its_own() -> None:
    assert auto("standard").has_own_steps
    assert not ForeignConfig(method="torchattack:MIFGSM", eps=EPS).has_own_steps


def test_its_version_decides_the_images() -> None:
    assert auto("standard").deciding["version"] == metadata.version("pyautoattack")


@pytest.mark.slow
def test_the_same_images_withstand_it_as_in_torchattacks(cifar10: Path) -> None:
    """On an adversarially trained network, at 2/255, where about half of the images withstand it.

    Square attack and random starts draw other numbers, so that an image or two may differ. PGD is never stronger.
    """
    config = ModelConfig(
        factory="pipelines.recipes.cifar_models:resnet_b",
        args={"blocks": 2},
        weights=str(cifar10 / "abc_resnet2b.pth"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.225, 0.225, 0.225),
    )
    net = load(config, classes=10, channels=3)
    with np.load(cifar10 / "test_lossless_1000.npz") as stored:
        images = torch.from_numpy(stored["images"][:60]).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(stored["labels"][:60])
    ids = [f"{row}" for row in range(60)]
    eps = 4 / 255
    ours = Setting(net, images, labels)
    own_B = withstand(ours, craft(net, images, labels, ids, auto("standard", eps=eps), seed=0))
    theirs = torchattacks.AutoAttack(net, norm="Linf", eps=eps, version="standard", n_classes=10, seed=0)
    their_B = withstand(ours, theirs(images.float() / 255, labels) * 255)
    pgd = AttackConfig(method="pgd", eps=eps, steps=100)
    pgd_B = withstand(ours, craft(net, images, labels, ids, pgd, seed=0))
    assert 10 <= int(own_B.sum()) <= 50
    assert int((own_B ^ their_B).sum()) <= 2
    assert int((own_B & ~pgd_B).sum()) <= 1 and int(own_B.sum()) <= int(pgd_B.sum())
