"""The attack loop: its steps by hand, the state in which it leaves the surrogate, and gradients that are not finite."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_setting import EPS, Setting, attack_of, linear, quick, random_images
from torch import Tensor, nn

from align_core.attacks import PRESETS, AttackConfig, craft, crafted, distances, loop

# The gradient away from class 0 is row 1 minus row 0: down, up, zero and up for the four pixels.
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


def test_distances_by_hand():
    images = torch.tensor([[10, 20, 30, 255], [0, 0, 0, 0]], dtype=torch.uint8).view(2, 1, 2, 2)
    crafted = torch.tensor([[13, 16, 30, 255], [0, 0, 0, 0]], dtype=torch.uint8).view(2, 1, 2, 2)
    linf, l2 = distances(crafted, images)
    assert linf.tolist() == pytest.approx([4 / 255, 0]) and l2.tolist() == pytest.approx([5 / 255, 0])


@pytest.fixture
def half_frozen() -> nn.Module:
    """A net in the middle of training: one layer frozen, its BatchNorm in eval mode, and a gradient not yet applied."""
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
    hooks = [
        len(part._forward_hooks) + len(part._backward_hooks) + len(part._forward_pre_hooks) for part in net.modules()
    ]
    return [flags, tensors, gradients, hooks]


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
    """A network of two logits, the first of which has an infinite gradient at a black image."""

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
def test_weights_that_are_not_numbers_are_an_error(method: str) -> None:
    net = linear([[float("nan")] * 4, [1.0] * 4, [2.0] * 4])
    setting = Setting(net, random_images(7, 1, 2, 2), torch.zeros(7, dtype=torch.int64), classes=3)
    with pytest.raises(FloatingPointError, match=r"for 7 images: \['0000', '0001', '0002', '0003', '0004'\]"):
        setting.craft(method, **quick(method))


class TestMemory:
    """Where a pass does not fit into memory it is halved, which is said; the images are those of the smaller pass."""

    class Small(torch.nn.Module):
        """A network whose memory holds so many images."""

        def __init__(self, net: nn.Module, most: int) -> None:
            super().__init__()
            self.net, self.most = net, most

        def forward(self, images: Tensor) -> Tensor:
            if len(images) > self.most:
                raise torch.OutOfMemoryError("out of memory")
            logits: Tensor = self.net(images)
            return logits

    def test_a_pass_is_halved_until_it_fits(self, small: Setting) -> None:
        attack = attack_of("vmi", steps=2)
        tight = replace(small, net=self.Small(small.net, 6))
        made = crafted(tight.net, tight.images, tight.labels, tight.ids, attack, 0, pass_rows=50)
        assert made.pass_rows == 6  # 50, 25, 12, 6
        plain = crafted(small.net, small.images, small.labels, small.ids, attack, 0, pass_rows=50)
        assert plain.pass_rows == 50
        assert (made.images_BCHW == plain.images_BCHW).float().mean() > 0.99

    @pytest.mark.parametrize("method", ["mi", "vmi", "gra", "bsr", "ops"])
    def test_points_and_draws_of_fewer_images_are_held_where_they_do_not_fit(
        self, method: str, small: Setting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory for so few points, those of all images of a batch, that a smaller pass is not enough."""
        attack, held = attack_of(method, **quick(method, most=4)), []
        of_points = loop.Gradients.__call__

        def within(self: Any, points_SBCHW: Tensor, *rest: Any) -> Tensor:
            held.append(points_SBCHW.shape[0] * points_SBCHW.shape[1])
            if held[-1] > 5:
                raise torch.OutOfMemoryError("out of memory")
            return of_points(self, points_SBCHW, *rest)

        plain = crafted(small.net, small.images, small.labels, small.ids, attack, 0, pass_rows=64)
        with monkeypatch.context() as patch:
            patch.setattr(loop.Gradients, "__call__", within)
            made = crafted(small.net, small.images, small.labels, small.ids, attack, 0, pass_rows=64)
        assert max(held) > 5  # the first batch did not fit
        assert plain.pass_rows == 64 and made.pass_rows is not None and made.pass_rows < 64
        assert made.images_BCHW.shape == plain.images_BCHW.shape
        assert (made.images_BCHW == plain.images_BCHW).float().mean() > 0.99

    def test_what_was_made_before_memory_ran_short_is_kept(self, small: Setting) -> None:
        """The images of the first batch are not attacked again; those after it are cut into smaller batches."""
        sizes: list[int] = []

        class Filling(nn.Module):
            """A network whose memory holds six images at first, and three after its second pass."""

            def forward(self, images: Tensor) -> Tensor:
                if len(images) > (6 if len(sizes) < 2 else 3):
                    raise torch.OutOfMemoryError("out of memory")
                sizes.append(len(images))
                logits: Tensor = small.net(images)
                return logits

        made = crafted(Filling(), small.images, small.labels, small.ids, attack_of("mi", steps=2), 0, pass_rows=4)
        assert sizes == [4, 4] + [2] * 4 and made.pass_rows == 2  # two steps for 4 images, then for 2 and 2
        assert (made.images_BCHW == small.craft("mi", steps=2)).float().mean() > 0.99

    def test_one_image_that_does_not_fit_is_an_error(self, small: Setting) -> None:
        with pytest.raises(torch.OutOfMemoryError):
            replace(small, net=self.Small(small.net, 0)).craft("mi")

    def test_the_size_of_a_pass_is_by_default_that_of_the_device(self, small: Setting) -> None:
        made = crafted(small.net, small.images, small.labels, small.ids, attack_of("mi", steps=1), 0)
        assert made.pass_rows == loop.PASS_ROWS["cpu"] == 100


class TestImagesWithoutAGradient:
    """Where a surrogate's gradient is zero, an attack changes nothing; that is counted and not hidden."""

    class Saturated(nn.Module):
        """Ignores images whose first pixel is above one half."""

        def forward(self, images_BCHW: Tensor) -> Tensor:
            flat = images_BCHW.flatten(1)
            return torch.where(flat[:, :1] > 0.5, flat[:, :2].detach(), flat[:, :2])

    @pytest.mark.parametrize("method", ["fgsm", "pgd", "mi", "vmi"])
    def test_they_are_counted(self, method: str) -> None:
        images_BCHW = torch.full((3, 1, 2, 2), 100, dtype=torch.uint8)
        images_BCHW[1] = 200
        labels_B = torch.zeros(3, dtype=torch.int64)
        attack = AttackConfig(method=method, eps=8 / 255, random_start=False)
        setting = (self.Saturated(), images_BCHW, labels_B, ["a", "b", "c"], attack, 0)
        images, without_gradient_B, *_ = crafted(*setting)
        assert without_gradient_B.tolist() == [False, True, False]
        assert torch.equal(images[1], images_BCHW[1])
        assert torch.equal(images, craft(*setting))


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_gradient_that_is_infinite_in_one_step_only_is_an_error(step: int) -> None:
    calls = []

    class Once(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            calls.append(1)
            weight = float("inf") if len(calls) == step + 1 else 1.0
            return images.flatten(1)[:, :2] * torch.tensor([weight, 1.0])

    images = torch.full((1, 1, 2, 2), 100, dtype=torch.uint8)
    with pytest.raises(FloatingPointError, match="not finite"):
        craft(Once(), images, torch.tensor([0]), ["a"], AttackConfig(method="ifgsm", eps=EPS, steps=3), seed=0)
