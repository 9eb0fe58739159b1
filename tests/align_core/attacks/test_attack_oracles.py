"""The attack methods against independent implementations: torchattack, torchattacks and plain loops."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
import torchattack
import torchattacks
from attack_setting import EPS, Recorder, Setting
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.models import Classifier

STEP = 2 / 255


@pytest.fixture(params=["small", "resnet20"])
def setting(request) -> Setting:
    return request.getfixturevalue(request.param)


def share_equal(ours: Tensor, theirs: Tensor) -> float:
    """Share of pixels in which our 8-bit images equal the oracle's float images, rounded to 8 bits."""
    return (ours == (theirs.detach() * 255).round()).float().mean().item()


def loss_gradient(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the cross-entropy, computed plainly, one image at a time."""
    gradients = []
    for image, label in zip(images, labels, strict=True):
        image = image[None].clone().requires_grad_()
        F.cross_entropy(net(image), label[None]).backward()
        gradients.append(image.grad)
    return torch.cat(gradients)


class Double(nn.Module):
    """A network in float64, so that two methods are compared rather than their rounding.

    The oracles' cross-entropy rounds p(label) to 1 in float32, and one changed sign leads to different images.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).double()

    def forward(self, images: Tensor) -> Tensor:
        images = images.double()
        if isinstance(self.net, Classifier):  # its forward would return float32
            return self.net.net((images - self.net.mean_C11) / self.net.std_C11)
        return self.net(images)


# torchattack's NI and SI-NI do not accumulate their momentum, so torchattacks is the oracle for them, and for VMI, VNI
# and TI. Random parts are switched off on both sides (torchattacks' TI would also apply DI). They are tested below, and
# DI in test_attack_transforms. The batch size is a power of two: the oracles take the mean over the batch and we take
# the sum, and only then is the one an exact multiple of the other. Otherwise rounding would change a sign here and
# there, and the images would differ after a few steps.
ORACLES = {
    "fgsm": (lambda net: torchattack.FGSM(net, eps=EPS, device=torch.device("cpu")), {"step": EPS, "steps": 1}),
    "mi": (lambda net: torchattack.MIFGSM(net, eps=EPS, alpha=STEP, steps=6, device=torch.device("cpu")), {}),
    "ni": (lambda net: torchattacks.NIFGSM(net, eps=EPS, alpha=STEP, steps=6), {}),
    "sini": (lambda net: torchattacks.SINIFGSM(net, eps=EPS, alpha=STEP, steps=6, m=5), {}),
    "vmi": (
        lambda net: torchattacks.VMIFGSM(net, eps=EPS, alpha=STEP, steps=6, N=2, beta=0),
        {"neighbours": 2, "neighbourhood": 0.0},
    ),
    "vni": (
        lambda net: torchattacks.VNIFGSM(net, eps=EPS, alpha=STEP, steps=6, N=2, beta=0),
        {"neighbours": 2, "neighbourhood": 0.0},
    ),
    "ti": (
        lambda net: torchattacks.TIFGSM(net, eps=EPS, alpha=STEP, steps=6, decay=1.0, len_kernel=5, diversity_prob=0.0),
        {},
    ),
}


@pytest.mark.parametrize("method", ORACLES)
def test_agrees_with_another_implementation(method, setting):
    oracle, settings = ORACLES[method]
    setting = replace(setting, net=Double(setting.net))
    ours = setting.craft(method, **{"step": STEP, "steps": 6, **settings})
    assert share_equal(ours, oracle(setting.net)(setting.images / 255, setting.labels)) > 0.99


def test_pgd_agrees_with_a_bare_loop(setting):
    images = adversarial = setting.images / 255
    for _ in range(6):
        adversarial = adversarial + STEP * loss_gradient(setting.net, adversarial, setting.labels).sign()
        adversarial = images + (adversarial - images).clamp(-EPS, EPS)
        adversarial = adversarial.clamp(0, 1)
    ours = setting.craft("pgd", step=STEP, steps=6, random_start=False)
    assert share_equal(ours, adversarial) > 0.99


def test_pgd_starts_at_a_uniform_point_of_the_ball_and_goes_on_from_there(small):
    recorder = Recorder(small.net)
    ours = replace(small, net=recorder).craft("pgd", step=STEP, steps=1)
    (start,) = recorder.seen
    images = small.images / 255
    inside = (images > EPS) & (images < 1 - EPS)  # elsewhere the ball is cut off by the pixel range
    noise = ((start - images) / EPS)[inside]
    assert scipy.stats.kstest(noise.double().numpy(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert start.min() >= 0 and start.max() <= 1
    end = start + STEP * loss_gradient(small.net, start, small.labels).sign()
    end = (images + (end - images).clamp(-EPS, EPS)).clamp(0, 1)
    assert share_equal(ours, end) > 0.99


@pytest.mark.parametrize("method", ["vmi", "vni"])
def test_variance_tuning_averages_the_gradients_of_random_neighbours(method, small):
    recorder = Recorder(small.net)
    ours = replace(small, net=recorder).craft(method, step=STEP, steps=3, neighbours=4, neighbourhood=0.5)
    assert len(recorder.seen) == 5 + 5 + 1  # the image and 4 neighbours, but at the last step the image alone

    images = adversarial = small.images / 255
    momentum = variance = torch.zeros_like(images)
    all_noise = []
    for seen in (recorder.seen[:5], recorder.seen[5:10], recorder.seen[10:]):
        noise = torch.stack([(near - adversarial) / (0.5 * EPS) for near in seen[1:]]) if seen[1:] else None
        if noise is not None:
            assert noise.abs().max() <= 1 + 1e-5
            all_noise.append(noise)
        point = adversarial + STEP * momentum if method == "vni" else adversarial
        gradient = loss_gradient(small.net, point, small.labels)
        tuned = gradient + variance
        momentum = momentum + tuned / tuned.abs().mean(dim=(1, 2, 3), keepdim=True)
        if seen[1:]:
            variance = sum(loss_gradient(small.net, near, small.labels) for near in seen[1:]) / 4 - gradient
        adversarial = (images + (adversarial + STEP * momentum.sign() - images).clamp(-EPS, EPS)).clamp(0, 1)
    assert share_equal(ours, adversarial) > 0.99

    uses = torch.cat(all_noise).flatten(0, 1).flatten(1).double().numpy()  # a row per step, neighbour and image
    assert scipy.stats.kstest(uses.flatten(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    # Every use draws noise of its own. With 1,200 numbers, chance correlations have a standard deviation of 0.03.
    assert np.abs(np.corrcoef(uses) - np.eye(len(uses))).max() < 0.2
