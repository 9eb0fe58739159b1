"""Properties of every preset, and the difference between each and the method on which it is based."""

from typing import Any

import pytest
import torch
from attack_setting import EPS, RANDOM, TARGETED, Setting, attack_of, quick
from torch import Tensor
from torch.nn import functional as F

from align_core.attacks import PRESETS, craft, distances


@pytest.mark.parametrize(
    ("method", "without", "base"),
    [
        ("pgd", {"random_start": False}, ("mi", {"momentum": 0.0})),
        ("ifgsm", {}, ("mi", {"momentum": 0.0})),
        ("cw", {"random_start": False}, ("ifgsm", {"objective": "margin"})),
        ("ni", {"nesterov": False}, ("mi", {})),
        ("gi", {"warm_start": 0}, ("mi", {})),
        ("di", {"views": []}, ("mi", {})),
        ("di", {"views": [{"name": "resize_pad", "probability": 0}]}, ("mi", {})),
        ("ti", {"kernel": 0}, ("mi", {})),
        ("ti", {"kernel": 1}, ("mi", {})),
        ("diti", {"kernel": 0}, ("di", {})),
        ("sini", {"views": [{"name": "scale", "copies": 1}]}, ("ni", {})),
        ("vmi", {"samples": "none"}, ("mi", {})),
        ("vni", {"samples": "none"}, ("ni", {})),
        ("vr", {"samples": {"name": "noise", "count": 1, "deviation": 0}}, ("mi", {})),
        ("pgn", {"samples": {"name": "penalty", "count": 1, "radius": 0, "share": 0}}, ("mi", {})),
        ("gra", {"samples": {"name": "relevance", "count": 1, "radius": 0}, "step_decay": 1}, ("mi", {})),
        (
            "mef",
            {"samples": {"name": "flatness", "count": 1, "radius": 0, "inner_radius": 0}},
            ("mi", {"momentum": 0.5}),
        ),
        ("ssa", {"views": [{"name": "spectrum", "copies": 1, "rho": 0, "noise": 0}]}, ("mi", {})),
        ("admix", {"views": [{"name": "admix", "share": 0, "copies": 1}, "scale"]}, ("si", {})),
        ("mi_l2", {"momentum": 0}, ("pgd_l2", {"random_start": False})),
    ],
)
def test_a_method_without_its_part_is_its_base(
    method: str, without: dict[str, Any], base: tuple[str, dict[str, Any]], small: Setting
) -> None:
    base_method, base_settings = base
    length = {"steps": 4, "step": 2 / 255 if "l2" not in method else 0.2}
    plain = small.craft(base_method, **length, **base_settings)
    # Equal but for a rounding error: some parts change nothing by multiplying with one.
    assert (small.craft(method, **length, **without) == plain).float().mean() > 0.99
    if without:
        assert not torch.equal(small.craft(method, **length), plain)


@pytest.mark.parametrize("eps", [1 / 255, 2.5 / 255, 16 / 255])
@pytest.mark.parametrize("method", PRESETS)
def test_results_are_8_bit_images_in_the_ball_with_a_better_objective(method: str, eps: float, small: Setting) -> None:
    eps *= 20 if "l2" in method else 1
    settings = quick(method) | {"step": eps}
    crafted = small.craft(method, eps=eps, **settings)
    assert crafted.dtype == torch.uint8 and crafted.shape == small.images.shape
    linf, l2 = distances(crafted, small.images)
    assert (l2 if "l2" in method else linf).max() <= eps + 1e-6 and linf.min() > 0
    towards = small.wanted if method in TARGETED else small.labels
    with torch.no_grad():
        before, after = (F.cross_entropy(small.net(x / 255), towards) for x in (small.images, crafted))
    assert after < before if method in TARGETED else after > before


@pytest.mark.parametrize("method", PRESETS)
def test_a_trained_network_is_fooled(method: str, resnet20: Setting) -> None:
    eps = 1.5 if "l2" in method else 8 / 255
    settings = quick(method, most=2, steps=12 if method in TARGETED else 4)
    settings["step"] = eps if settings["steps"] == 1 else eps / 3
    assert fooled(method, resnet20, eps=eps, **settings) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("method", PRESETS)
def test_a_trained_network_is_fooled_at_the_settings_of_the_paper(method: str, resnet20: Setting) -> None:
    few = resnet20.rows([0] if method == "ops" else [0, 1, 2, 3])
    missed = len(few.images) - fooled(method, few, eps=1.5 if "l2" in method else 8 / 255)
    assert missed <= (1 if attack_of(method).steps == 1 else 0)


def fooled(method: str, resnet20: Setting, **settings: Any) -> int:
    """How many of the images are misclassified, or by a targeted attack are taken for the class led to."""
    crafted = resnet20.craft(method, **settings)
    with torch.no_grad():
        before, after = (resnet20.net(x / 255).argmax(dim=1) for x in (resnet20.images, crafted))
    assert torch.equal(before, resnet20.labels)
    return int((after == resnet20.wanted if method in TARGETED else after != resnet20.labels).sum())


@pytest.mark.parametrize("method", TARGETED)
def test_a_targeted_attack_raises_the_logit_and_probability_of_its_class(method: str, small: Setting) -> None:
    crafted = small.craft(method, steps=10, step=EPS / 5)
    with torch.no_grad():
        before, after = (small.net(x / 255) for x in (small.images, crafted))
    rows = torch.arange(len(small.images)), small.wanted
    assert (after[rows] > before[rows]).all()
    assert (after.softmax(dim=1)[rows] > before.softmax(dim=1)[rows]).all()


@pytest.mark.parametrize("method", PRESETS)
def test_a_result_depends_on_the_image_alone_not_on_its_batch(method: str, small: Setting) -> None:
    attack = attack_of(method, **quick(method))

    def crafted(rows: list[int]) -> dict[str, Tensor]:
        ids = [small.ids[row] for row in rows]
        images = craft(
            small.net,
            small.images[rows],
            small.labels[rows],
            ids,
            attack,
            seed=3,
            others=small.others,
            wanted_B=small.wanted[rows] if attack.is_targeted else None,
        )
        return dict(zip(ids, images, strict=True))

    together = crafted(list(range(8)))
    for rows in ([7, 0, 5, 3], [2], list(reversed(range(8)))):
        for image_id, image in crafted(rows).items():
            # Not every pixel: sums over a batch of another size may be rounded differently, which can change a sign.
            assert (image == together[image_id]).float().mean() > 0.99


@pytest.mark.parametrize("method", PRESETS)
def test_the_seed_decides_where_chance_has_a_part(method: str, small: Setting) -> None:
    first, again, other = (small.craft(method, seed, **quick(method)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (method not in RANDOM)
