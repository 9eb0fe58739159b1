"""Properties of every attack method, and the difference between each and the method on which it is based."""

import pytest
import torch
from attack_setting import EPS, quick
from torch.nn import functional as F

from align_core.attacks import PRESETS, AttackConfig, craft, distances


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
            # Not every pixel: sums over a batch of another size may be rounded differently, which can change a sign.
            assert (image == together[image_id]).float().mean() > 0.99


@pytest.mark.parametrize("method", PRESETS)
def test_the_seed_decides_where_chance_has_a_part(method, small):
    first, again, other = (small.craft(method, seed, **quick(method)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (method in ("fgsm", "mi", "ni", "ti", "sini"))
