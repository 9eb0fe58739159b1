import copy
import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import scipy.special
import scipy.stats
import torch
import torchattack
import torchattacks
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.attacks import PRESETS, AttackConfig, craft, distances, pixel_fraction
from align_core.attacks.gradients import gaussian_kernel, smooth
from align_core.attacks.objectives import cross_entropy, margin
from align_core.attacks.transforms import resize_and_pad
from align_core.attacks.updates import accumulate, project, round_inside
from align_core.models import Classifier, ModelConfig, load
from align_core.randomness import image_keys, part_keys

CIFAR10 = Path(os.environ.get("WITNESS_CIFAR10", Path(__file__).parents[2] / "../shared/data/cifar10"))
EPS, STEP = 8 / 255, 2 / 255


@dataclass(frozen=True)
class Setting:
    """A network in pixels, and images that it can be attacked on."""

    net: nn.Module
    images: Tensor
    labels: Tensor

    @property
    def ids(self) -> list[str]:
        return [f"{row:04d}" for row in range(len(self.images))]

    def craft(self, method: str, seed: int = 0, **settings) -> Tensor:
        attack = AttackConfig(method=method, **{"eps": EPS, **settings})
        return craft(self.net, self.images, self.labels, self.ids, attack, seed)


def random_images(*shape: int) -> Tensor:
    """8-bit noise that has many pixels at either end of the range."""
    wide = np.random.default_rng(0).normal(127, 90, size=shape)
    return torch.from_numpy(wide.round().clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def small() -> Setting:
    """A random convolutional net with BatchNorm and dropout, and noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(16 * 10 * 10, 10),
        )
    return Setting(net.eval(), random_images(8, 3, 20, 20), torch.arange(8))


@pytest.fixture(scope="module")
def resnet20() -> Setting:
    """A published CIFAR-10 network, and eight test images that it gets right, without being entirely sure.

    Where the label has all of the probability that float32 can tell from 1, the gradient of the cross-entropy is
    rounding noise: it would compare kinds of CPU, not attacks.
    """
    if not CIFAR10.is_dir():
        pytest.skip(f"no CIFAR-10 files in {CIFAR10}; $WITNESS_CIFAR10 names their folder")
    config = ModelConfig(
        factory="pipelines.recipes.cifar_models:resnet",
        args={"depth": 20},
        weights=str(CIFAR10 / "akamaster_resnet20-12fca82f.th"),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    net = load(config, classes=10, channels=3)
    with np.load(CIFAR10 / "test_lossless_1000.npz") as stored:
        images = torch.from_numpy(stored["images"][:100]).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(stored["labels"][:100])
    with torch.no_grad():
        confidence = net(images / 255).softmax(dim=1).gather(1, labels[:, None])[:, 0]
    chosen = ((confidence > 0.5) & (confidence < 0.9999)).nonzero()[:8, 0]
    return Setting(net, images[chosen], labels[chosen])


@pytest.fixture(params=["small", "resnet20"])
def setting(request) -> Setting:
    return request.getfixturevalue(request.param)


class Recorder(nn.Module):
    """A surrogate that keeps every batch that it is shown."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.net(images)


def share_equal(ours: Tensor, theirs: Tensor) -> float:
    """Share of pixels in which our 8-bit images and somebody's float images are the same 8-bit value."""
    return (ours == (theirs.detach() * 255).round()).float().mean().item()


def loss_gradient(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the cross-entropy, written plainly: one image at a time."""
    gradients = []
    for image, label in zip(images, labels, strict=True):
        image = image[None].clone().requires_grad_()
        F.cross_entropy(net(image), label[None]).backward()
        gradients.append(image.grad)
    return torch.cat(gradients)


class Double(nn.Module):
    """A network in float64: one method compared with another, not their roundings.

    The oracles' cross-entropy rounds p(label) to 1 in float32, and a sign that is turned leads to other images.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).double()

    def forward(self, images: Tensor) -> Tensor:
        images = images.double()
        if isinstance(self.net, Classifier):  # whose own forward returns float32
            return self.net.net((images - self.net.mean_C11) / self.net.std_C11)
        return self.net(images)


# ---- The methods, against implementations that are not ours ----

# torchattack's NI and SI-NI do not accumulate their momentum: torchattacks is the oracle there, for VMI, VNI and TI.
# Random parts are switched off on both sides (its TI would also apply DI); they are tested further down. The batch is a
# power of two: the oracles take the mean over it and we the sum, and then the one is exactly a multiple of the other.
# Otherwise a single sign, turned by rounding, would lead to other images within a few steps.
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
    inside = (images > EPS) & (images < 1 - EPS)  # elsewhere the range of pixels cuts the ball
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
    assert len(recorder.seen) == 5 + 5 + 1  # the image and its neighbours; the last step's variance is of no use

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

    uses = torch.cat(all_noise).flatten(0, 1).flatten(1).double().numpy()  # step x neighbour x image
    assert scipy.stats.kstest(uses.flatten(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(uses) - np.eye(len(uses))).max() < 0.2  # each its own; 1200 numbers: sigma is 0.03


# ---- The methods, by hand ----


def linear(weights, biases=None) -> nn.Module:
    """Logits that are linear in the pixels; the rows of `weights` are the classes."""
    layer = nn.Linear(len(weights[0]), len(weights))
    layer.weight.data = torch.tensor(weights)
    layer.bias.data = torch.tensor(biases or [0.0] * len(weights))
    return nn.Sequential(nn.Flatten(), layer)


# Away from class 0 the loss grows along the other row minus its own: down, up, nowhere, up.
TWO_CLASSES = linear([[1.0, -2.0, 0.0, 3.0], [-1.0, 0.0, 0.0, 5.0]])
PIXELS = [100, 254, 50, 3]


@pytest.mark.parametrize(
    ("method", "settings", "away_from_0", "away_from_1"),
    [
        ("fgsm", {"eps": 4 / 255}, [96, 255, 50, 7], [104, 250, 50, 0]),
        ("fgsm", {"eps": 2.5 / 255}, [98, 255, 50, 5], [102, 252, 50, 1]),
        ("pgd", {"eps": 4 / 255, "step": 3 / 255, "steps": 1}, [97, 255, 50, 6], [103, 251, 50, 0]),
        ("pgd", {"eps": 5 / 255, "step": 2 / 255, "steps": 2}, [96, 255, 50, 7], [104, 250, 50, 0]),
        ("pgd", {"eps": 5 / 255, "step": 2 / 255, "steps": 3}, [95, 255, 50, 8], [105, 249, 50, 0]),
        ("mi", {"eps": 5 / 255, "step": 2 / 255, "steps": 3}, [95, 255, 50, 8], [105, 249, 50, 0]),
        ("mi", {"eps": 1, "step": 1, "steps": 1}, [0, 255, 50, 255], [255, 0, 50, 0]),
    ],
)
def test_steps_on_a_linear_model(method, settings, away_from_0, away_from_1):
    images = torch.tensor([PIXELS, PIXELS], dtype=torch.uint8).view(2, 1, 2, 2)
    attack = AttackConfig(method=method, random_start=False, **settings)
    crafted = craft(TWO_CLASSES, images, torch.tensor([0, 1]), ["a", "b"], attack, seed=0)
    assert crafted.flatten(1).tolist() == [away_from_0, away_from_1]


def test_the_objective_decides_the_direction():
    # Class 1 leads and grows with the pixel; class 2 is close behind and falls steeply.
    net = linear([[0.0], [1.0], [-10.0]], [0.0, 1.0, 0.9])
    image = torch.full((1, 1, 1, 1), 10, dtype=torch.uint8)
    for objective, expected in (("margin", 12), ("cross_entropy", 8)):
        attack = AttackConfig(method="fgsm", eps=2 / 255, objective=objective)
        assert craft(net, image, torch.tensor([0]), ["a"], attack, seed=0).item() == expected


def test_margin_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.5], [3.0, 1.0, 2.5], [-4.0, -4.0, -9.0]])
    assert margin(logits, torch.tensor([0, 1, 2])).tolist() == [-0.5, 2.0, 5.0]


def test_cross_entropy_is_per_image():
    logits, labels = torch.tensor([[3.0, 1.0, 2.5], [0.0, -2.0, 4.0]]), torch.tensor([1, 2])
    expected = -scipy.special.log_softmax(logits.double().numpy(), axis=1)[[0, 1], labels]
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-5)


def test_momentum_over_two_steps_by_hand():
    first = torch.tensor([[2.0, -4.0, 0.0, 2.0], [200.0, -400.0, 0.0, 200.0]]).view(2, 1, 2, 2)
    second = torch.tensor([[-3.0, 1.0, -1.0, -3.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)
    momentum = accumulate(torch.zeros(2, 1, 2, 2), first, 0.5)
    assert momentum.flatten(1).tolist() == [[1, -2, 0, 1], [1, -2, 0, 1]]  # each image by its own mean
    momentum = accumulate(momentum, second, 0.5)
    assert momentum.flatten(1).tolist() == [[-1, -0.5, -0.5, -1], [0.5, -1, 0, 0.5]]


@pytest.mark.parametrize(
    ("point", "centre", "eps", "expected"),
    [(0.5, 0.4, 0.05, 0.45), (0.3, 0.4, 0.05, 0.35), (0.42, 0.4, 0.05, 0.42), (-1, 0.01, 0.05, 0), (2, 0.99, 0.05, 1)],
)
def test_projection_by_hand(point, centre, eps, expected):
    assert project(torch.tensor(point), torch.tensor(centre), eps).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("point", "centre", "eps", "expected"),
    [
        (103.4, 100, 4 / 255, 103),
        (103.6, 100, 4 / 255, 104),
        (104.2, 100, 4 / 255, 104),
        (104.9, 100, 4 / 255, 104),
        (95.1, 100, 4 / 255, 96),
        (103.5, 101, 2.5 / 255, 103),  # 104, the nearest, is 3 away
        (98.5, 101, 2.5 / 255, 99),
        (103.6, 101, 2.6 / 255, 103),
        (109.0, 101, 0.0313725, 109),  # 8/255, written in six figures
        (0.4, 2, 4 / 255, 0),
        (-2.0, 2, 4 / 255, 0),
        (254.6, 253, 4 / 255, 255),
        (257.0, 253, 4 / 255, 255),
    ],
)
def test_rounding_by_hand(point, centre, eps, expected):
    rounded = round_inside(torch.tensor([point / 255]), torch.tensor([centre], dtype=torch.uint8), eps)
    assert rounded.dtype == torch.uint8 and rounded.item() == expected


@pytest.mark.parametrize("sign", [-1, 1])
def test_whole_eps_reaches_exactly_that_many_levels_from_every_centre(sign):
    centres = torch.arange(256, dtype=torch.uint8)
    for levels in range(1, 256):
        eps = pixel_fraction(f"{levels}/255")
        far = project(centres / 255 + sign * 2.0, centres / 255, eps)
        expected = (centres.int() + sign * levels).clamp(0, 255)
        assert torch.equal(round_inside(far, centres, eps).int(), expected), levels


def test_distances_by_hand():
    images = torch.tensor([[10, 20, 30, 255], [0, 0, 0, 0]], dtype=torch.uint8).view(2, 1, 2, 2)
    crafted = torch.tensor([[13, 16, 30, 255], [0, 0, 0, 0]], dtype=torch.uint8).view(2, 1, 2, 2)
    linf, l2 = distances(crafted, images)
    assert linf.tolist() == pytest.approx([4 / 255, 0]) and l2.tolist() == pytest.approx([5 / 255, 0])


# ---- The parts: TI, DI, SI ----


@pytest.mark.parametrize("side", [1, 3, 5, 15])
def test_gaussian_kernel_is_scipys(side):
    density = scipy.stats.norm.pdf(np.linspace(-3, 3, side) if side > 1 else [0.0])
    expected = np.outer(density, density) / np.outer(density, density).sum()
    np.testing.assert_allclose(gaussian_kernel(side), expected, rtol=1e-4)


@pytest.mark.parametrize("side", [3, 5, 15])
def test_smoothing_is_scipys_convolution_of_each_channel(side):
    gradient = np.random.default_rng(0).normal(size=(2, 3, 12, 9)).astype(np.float32)
    density = scipy.stats.norm.pdf(np.linspace(-3, 3, side))
    kernel = np.outer(density, density) / np.outer(density, density).sum()
    expected = [[scipy.signal.convolve2d(plane, kernel, mode="same") for plane in image] for image in gradient]
    np.testing.assert_allclose(smooth(torch.from_numpy(gradient), gaussian_kernel(side)), expected, atol=1e-5)


def boxes(keys: Tensor, height: int, width: int, probability: float, smallest: float) -> list[tuple[int, ...]]:
    """Where each image comes to lie, (top, left, height, width), read off white images."""
    white = torch.ones(len(keys), 1, height, width)
    return [box(image) for image in resize_and_pad(white, keys, probability, smallest)]


def box(image: Tensor) -> tuple[int, ...]:
    rows, columns = (image[0] > 0.5).any(dim=1).nonzero(), (image[0] > 0.5).any(dim=0).nonzero()
    return int(rows[0]), int(columns[0]), len(rows), len(columns)


@pytest.mark.parametrize(("height", "width", "smallest"), [(32, 32, 0.9), (32, 32, 0.5), (20, 30, 0.7)])
def test_di_is_interpolate_and_pad_image_by_image(height, width, smallest):
    keys = part_keys(image_keys(0, [str(row) for row in range(40)]), 0, "di/0")
    images = random_images(40, 3, height, width) / 255
    diverse = resize_and_pad(images, keys, 1.0, smallest)
    places = boxes(keys, height, width, 1.0, smallest)
    for image, ours, (top, left, high, wide) in zip(images, diverse, places, strict=True):
        shrunk = F.interpolate(image[None], (high, wide), mode="bilinear", antialias=False, align_corners=False)[0]
        expected = F.pad(shrunk, (left, width - left - wide, top, height - top - high))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_di_draws_sides_places_and_whether_at_all_for_each_image():
    keys = part_keys(image_keys(0, [str(row) for row in range(4000)]), 0, "di/0")
    always = boxes(keys, 32, 32, 1.0, 0.9)
    assert {high for _, _, high, _ in always} == {28, 29, 30, 31}  # 0.9 * 32 = 28.8, in whole pixels
    assert all(high == wide for _, _, high, wide in always)
    smallest = [(top, left) for top, left, high, _ in always if high == 28]
    assert set(smallest) == set(itertools.product(range(5), range(5)))  # every place that there is, and no other
    half = boxes(keys, 32, 32, 0.5, 0.9)
    untouched = [place == (0, 0, 32, 32) for place in half]
    assert scipy.stats.binomtest(sum(untouched), 4000, 0.5).pvalue > 0.01
    touched = {drawn for drawn, place in zip(always, half, strict=True) if place == drawn}
    assert {high for _, _, high, _ in touched} == {28, 29, 30, 31}  # whether, and how, are independent
    assert all(same or place == drawn for place, drawn, same in zip(half, always, untouched, strict=True))


def test_di_with_probability_0_leaves_images_as_they_are():
    images = random_images(40, 3, 32, 32) / 255
    keys = part_keys(image_keys(0, [str(row) for row in range(40)]), 0, "di/0")
    torch.testing.assert_close(resize_and_pad(images, keys, 0.0, 0.5), images, atol=1e-4, rtol=0)


def test_the_loop_draws_di_afresh_for_each_step_image_and_seed(small):
    def places(seed):
        recorder = Recorder(small.net)
        white = Setting(recorder, torch.full_like(small.images, 255), small.labels)
        white.craft("di", seed, steps=4, diversity=1.0, diversity_size=0.5)
        return [[box(image) for image in seen] for seen in recorder.seen]

    first, again, other = places(0), places(0), places(1)
    assert first == again
    assert len({place for step in first for place in step}) > 25  # 4 steps of 8 images; a few may coincide
    assert not {tuple(step) for step in first} & {tuple(step) for step in other}


def test_si_shows_copies_scaled_by_powers_of_two(small):
    recorder = Recorder(small.net)
    replace(small, net=recorder).craft("sini", steps=1, copies=3)
    for seen, scale in zip(recorder.seen, (1, 2, 4), strict=True):
        torch.testing.assert_close(seen, small.images / 255 / scale)


@pytest.mark.parametrize(
    ("method", "without", "base"),
    [
        ("pgd", {"random_start": False}, ("mi", {"momentum": 0.0})),
        ("ni", {"nesterov": False}, ("mi", {})),
        ("di", {"diversity": 0.0}, ("mi", {})),
        ("ti", {"kernel": 0}, ("mi", {})),
        ("sini", {"copies": 1}, ("ni", {})),
        ("vmi", {"neighbours": 0}, ("mi", {})),
        ("vni", {"neighbours": 0}, ("ni", {})),
    ],
)
def test_a_method_without_its_part_is_its_base(method, without, base, small):
    base_method, base_settings = base
    plain = small.craft(base_method, steps=4, **base_settings)
    assert torch.equal(small.craft(method, steps=4, **without), plain)
    assert not torch.equal(small.craft(method, steps=4), plain)


# ---- What holds for every method ----


def quick(method: str) -> dict[str, int]:
    """Settings that shorten the long methods."""
    return {"steps": 1 if method == "fgsm" else 3, "neighbours": 2 if method in ("vmi", "vni") else 0}


@pytest.mark.parametrize("eps", [1 / 255, 2.5 / 255, 16 / 255])
@pytest.mark.parametrize("method", PRESETS)
def test_results_are_8_bit_images_in_the_ball_with_a_greater_loss(method, eps, small):
    crafted = small.craft(method, eps=eps, **quick(method))
    assert crafted.dtype == torch.uint8 and crafted.shape == small.images.shape
    linf, _ = distances(crafted, small.images)
    assert linf.max() <= eps + 1e-6 and linf.min() > 0
    with torch.no_grad():
        before, after = (F.cross_entropy(small.net(x / 255), small.labels) for x in (small.images, crafted))
    assert after > before


@pytest.mark.parametrize("method", PRESETS)
def test_a_trained_network_is_fooled(method, resnet20):
    crafted = resnet20.craft(method, eps=4 / 255, **quick(method))
    with torch.no_grad():
        right = [(resnet20.net(x / 255).argmax(dim=1) == resnet20.labels).sum() for x in (resnet20.images, crafted)]
    assert right[0] == 8 and right[1] <= 1


@pytest.mark.parametrize("method", PRESETS)
def test_a_result_depends_on_the_image_alone_not_on_its_batch(method, small):
    attack = AttackConfig(method=method, eps=EPS, **quick(method))

    def crafted(rows):
        ids = [small.ids[row] for row in rows]
        images = craft(small.net, small.images[rows], small.labels[rows], ids, attack, seed=3)
        return dict(zip(ids, images, strict=True))

    together = crafted(list(range(8)))
    for rows in ([7, 0, 5, 3], [2], list(reversed(range(8)))):
        for image_id, image in crafted(rows).items():
            # Not all: sums over another size of batch may be rounded otherwise, and turn a sign.
            assert (image == together[image_id]).float().mean() > 0.99


@pytest.mark.parametrize("method", PRESETS)
def test_the_seed_decides_where_chance_has_a_part(method, small):
    first, again, other = (small.craft(method, seed, **quick(method)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (method in ("fgsm", "mi", "ni", "ti", "sini"))


@pytest.fixture
def half_frozen() -> nn.Module:
    """A net amid training: one layer frozen, its BatchNorm in eval mode, a gradient waiting for its step."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 18 * 18, 10))
    net.train()
    net[0].requires_grad_(False)
    net[1].eval()
    net[4].bias.grad = torch.ones(10)
    return net


def condition(net: nn.Module) -> list:
    flags = [part.training for part in net.modules()] + [parameter.requires_grad for parameter in net.parameters()]
    tensors = [value.tolist() for value in net.state_dict().values()]
    gradients = [None if parameter.grad is None else parameter.grad.tolist() for parameter in net.parameters()]
    return [flags, tensors, gradients]


@pytest.mark.parametrize("method", PRESETS)
def test_the_surrogate_is_left_as_it_was(method, half_frozen, small):
    before = condition(half_frozen)
    replace(small, net=half_frozen).craft(method, **quick(method))
    assert condition(half_frozen) == before


def test_the_surrogate_is_left_as_it_was_also_when_it_fails(half_frozen, small):
    before = condition(half_frozen)
    with pytest.raises(RuntimeError, match="shape"):
        replace(small, net=half_frozen, images=small.images[:, :, :10]).craft("mi")
    assert condition(half_frozen) == before


def test_the_surrogate_is_attacked_in_eval_mode(small):
    expected = small.craft("mi", steps=3)
    small.net.train()
    try:
        assert torch.equal(small.craft("mi", steps=3), expected)
    finally:
        small.net.eval()


class Root(nn.Module):
    """Two logits, of which the first has an infinite gradient at black."""

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.flatten(1).mean(dim=1)
        return torch.stack([brightness.sqrt(), torch.zeros_like(brightness)], dim=1)


@pytest.mark.parametrize("method", ["fgsm", "mi", "vmi"])
def test_an_infinite_gradient_is_an_error_that_names_the_image(method):
    images = torch.tensor([200, 0, 100], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    attack = AttackConfig(method=method, eps=EPS)
    with pytest.raises(FloatingPointError, match=r"not finite for 1 images: \['black'\]"):
        craft(Root(), images, torch.tensor([0, 0, 0]), ["bright", "black", "grey"], attack, seed=0)


@pytest.mark.parametrize("method", PRESETS)
def test_weights_that_are_not_numbers_are_an_error(method):
    images = random_images(7, 1, 2, 2)
    net = linear([[float("nan")] * 4, [1.0] * 4])
    attack = AttackConfig(method=method, eps=EPS, **quick(method))
    with pytest.raises(FloatingPointError, match=r"for 7 images: \['0', '1', '2', '3', '4'\]"):
        craft(net, images, torch.zeros(7, dtype=torch.int64), list("0123456"), attack, seed=0)


# ---- The configuration ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "cw"}, "no method 'cw'; there are fgsm, pgd, mi"),
        ({"objective": "logit"}, "no objective 'logit'; there are cross_entropy, margin"),
        ({"eps": 0}, "eps must lie between 1/255 and 1, .* is 0$"),
        ({"eps": -4 / 255}, "eps must lie .* is -0.0156"),
        ({"eps": 0.9 / 255}, "eps must lie .* is 0.0035"),
        ({"eps": 8}, "eps must lie .* is 8: did you mean 8/255?"),
        ({"eps": float("nan")}, "eps must lie .* is nan"),
        ({"eps": float("inf")}, "eps must lie .* is inf"),
        ({"step": float("nan")}, "step must lie above 0 .* is nan"),
        ({"step": 0}, "step must lie above 0 .* is 0$"),
        ({"step": -1 / 255}, "step must lie above 0"),
        ({"step": 2}, "step must lie above 0 and not above 1.* is 2$"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"method": "fgsm", "steps": 3}, "steps must be 1 for fgsm; pgd is its iterated form, not 3"),
        ({"momentum": -1.0}, "momentum must be 0 or more, not -1"),
        ({"diversity": 1.1}, "diversity must be a probability, not 1.1"),
        ({"diversity": -0.1}, "diversity must be a probability, not -0.1"),
        ({"diversity_size": 0.0}, "diversity_size must be above 0 and not above 1, not 0"),
        ({"diversity_size": 1.1}, "diversity_size must be above 0 and not above 1, not 1.1"),
        ({"kernel": 4}, "kernel must be odd, or 0, not 4"),
        ({"kernel": -3}, "kernel must be odd, or 0, not -3"),
        ({"copies": 0}, "copies must be at least 1, not 0"),
        ({"neighbours": -1}, "neighbours must be 0 or more, not -1"),
        ({"neighbourhood": -1.0}, "neighbourhood must be 0 or more, not -1"),
    ],
)
def test_settings_that_make_no_attack_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AttackConfig(**{"method": "mi", "eps": 4 / 255, **settings})


def test_settings_at_the_border_are_taken():
    AttackConfig(method="mi", eps=1 / 255, step=1, momentum=0.0, diversity=1.0, kernel=1, neighbourhood=0.0)
    AttackConfig(method="mi", eps=pixel_fraction("1/255"))
    AttackConfig(method="mi", eps=1.0)


def test_what_is_not_given_comes_from_the_method():
    vni = AttackConfig(method="vni", eps=4 / 255, steps=20, momentum=0.9).resolved()
    assert (vni.nesterov, vni.neighbours, vni.neighbourhood) == (True, 20, 1.5)  # of VNI
    assert (vni.steps, vni.momentum) == (20, 0.9)  # as given
    assert (vni.step, vni.copies, vni.kernel, vni.diversity, vni.random_start) == (1 / 255, 1, 0, 0.0, False)  # of all
    assert vni.resolved() == vni
    fgsm = AttackConfig(method="fgsm", eps=4 / 255).resolved()
    assert (fgsm.step, fgsm.steps, fgsm.momentum) == (4 / 255, 1, 0.0)
    assert AttackConfig(method="vmi", eps=4 / 255, neighbours=0).resolved().neighbours == 0


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("4/255", 4 / 255),
        ("0.5/255", 0.5 / 255),
        ("0.5", 0.5),
        ("1e-2", 0.01),
        (" 8/255 ", 8 / 255),
        (0.25, 0.25),
        (1, 1),
    ],
)
def test_pixel_fractions(written, value):
    assert pixel_fraction(written) == pytest.approx(value)


@pytest.mark.parametrize("written", ["four", "4/0", "4/255/2", "4/", "/255", "", None, [4]])
def test_what_is_no_pixel_fraction_is_refused(written):
    with pytest.raises(ValueError, match="is not a pixel fraction such as 4/255"):
        pixel_fraction(written)
