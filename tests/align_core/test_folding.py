"""BatchNorm folded into convolutions: the same function, only where the modules allow it, and no network is changed."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from align_core.folding import fold, foldable
from align_core.model_config import ModelConfig
from align_core.models import Classifier, copy_of, load
from pipelines.recipes.cifar_models import resnet


def classifier(net: nn.Module) -> Classifier:
    """A network in eval mode whose statistics differ from channel to channel, as those of a trained one."""
    torch.manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.5)
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight, 1, 0.2)
            nn.init.normal_(part.bias, 0, 0.2)
    return Classifier(net, (0.5,) * 3, (0.25,) * 3, None).eval().requires_grad_(False)


def folded(plain: Classifier) -> Classifier:
    return fold(copy_of(plain), foldable(plain.net).pairs)


def batchnorms(net: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())


NETS = {
    "cifar resnet20": (lambda: resnet(depth=20), 32, 19, 0),
    "torchvision resnet18": (lambda: torchvision.models.resnet18(num_classes=10), 64, 20, 0),
    "timm regnety, whose BatchNorm has its activation inside": (lambda: timm.create_model("regnety_002"), 64, 44, 0),
    "densenet, half of whose BatchNorms come first": (
        lambda: timm.create_model("densenet121"),
        64,
        121,
        62,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_logits_and_gradients_stay_the_same(name: str) -> None:
    make, side, before, after = NETS[name]
    plain = classifier(make())
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    own = folded(plain)
    assert (batchnorms(plain), batchnorms(own)) == (before, after)
    images = torch.rand(2, 3, side, side, generator=torch.manual_seed(1), dtype=torch.float64).requires_grad_()
    values = []
    for net in (plain.double(), own.double()):
        logits = net.net((images - net.mean_C11) / net.std_C11)
        values.append((logits.detach(), torch.autograd.grad(logits.square().sum(), images)[0]))
    for one, other in zip(*values, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5 * float(one.abs().max()))
    plain.float()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    assert not any(part.training for part in own.modules())
    assert not any(parameter.requires_grad for parameter in own.parameters())


def test_a_network_with_depthwise_convolutions_is_left_as_it_is() -> None:
    plain = classifier(timm.create_model("mobilenetv2_035"))
    assert foldable(plain.net) == ((), None)


TRACED = "torch.fx cannot trace its forward"


class Branching(nn.Module):
    """Runs another path for bright images, which no symbolic trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images if images.mean() > 0 else -images).mean(dim=(2, 3))


class Shared(nn.Module):
    """Its convolution is used twice, and the output of the other is looked at by more than its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.after = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.conv(self.after(self.twice(self.twice(images))))
        return (self.norm(seen) + seen).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("make", "obstacle"),
    [
        (
            Branching,
            TRACED,
        ),
        (Shared, "no BatchNorm follows a convolution of its own"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), None),
    ],
)
def test_what_cannot_be_folded_is_left_as_it_is_and_says_why(make: type[nn.Module], obstacle: str | None) -> None:
    plain = classifier(make())
    assert foldable(plain.net) == ((), obstacle)


def test_a_hook_keeps_its_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    assert len(foldable(classifier(net).net).pairs) == 1
    net[0].register_forward_hook(lambda *_: None)
    assert foldable(classifier(net).net).pairs == ()


def test_a_published_network_gives_the_same_predictions(cifar10: Path) -> None:
    weights = str(cifar10 / "akamaster_resnet20-12fca82f.th")
    config = ModelConfig(factory="pipelines.recipes.cifar_models:resnet", args={"depth": 20}, weights=weights)
    plain = load(config, classes=10, channels=3)
    images = torch.rand(64, 3, 32, 32, generator=torch.manual_seed(0))
    with torch.no_grad():
        one, other = plain(images), folded(plain)(images)
    assert torch.equal(one.argmax(dim=1), other.argmax(dim=1))
    assert (one - other).abs().max() < 1e-4 * one.abs().max()
