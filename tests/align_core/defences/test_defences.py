"""Defences against independent implementations, and what all of them have in common."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import median_filter
from torch import nn

from align_core.defences import DEFENCES, Wrap, defence_function, defended, read_wrap
from align_core.models import Classifier, Ensemble

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
IMAGES = torch.from_numpy(PIXELS).float() / 255
SMOOTH = torch.nn.functional.interpolate(IMAGES[:, :, :4, :4], 16, mode="bilinear")


IDS = ["00007", "00001", "b/4.png", "b/5.png", "c", "00012"]


def defence(name: str, seed: int = 0, **settings: float):
    return defence_function(read_wrap(name, settings).seeded(seed))


@pytest.mark.parametrize("name", DEFENCES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_defence_returns_images_whatever_the_batch(name: str, channels: int) -> None:
    function, images = defence(name), IMAGES[:, :channels]
    together = function(images, IDS)
    assert together.shape == images.shape and together.dtype == torch.float32
    assert together.min() >= 0 and together.max() <= 1
    assert not torch.equal(together, images)
    assert torch.equal(function(images, IDS), together)
    for row in (0, 5):
        assert torch.equal(function(images[row : row + 1], IDS[row : row + 1]), together[row : row + 1])
    order = [3, 1, 5, 0, 2, 4]
    assert torch.equal(function(images[order], [IDS[row] for row in order]), together[order])


@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_what_pillow_writes_and_reads(quality: int) -> None:
    def stored(picture: Image.Image) -> np.ndarray:
        file = io.BytesIO()
        picture.save(file, format="JPEG", quality=quality)
        return np.asarray(Image.open(file))

    found = (defence("jpeg", quality=quality)(IMAGES, IDS) * 255).round().byte().numpy()
    for own, levels in zip(found, PIXELS, strict=True):
        assert (own.transpose(1, 2, 0) == stored(Image.fromarray(levels.transpose(1, 2, 0)))).all()
    grey = (defence("jpeg", quality=quality)(IMAGES[:, :1]) * 255).round().byte().numpy()
    assert (grey[0, 0] == stored(Image.fromarray(PIXELS[0, 0]))).all()


def test_a_lower_quality_changes_more() -> None:
    far, near = ((defence("jpeg", quality=q)(SMOOTH) - SMOOTH).abs().mean() for q in (5, 95))
    assert far > 3 * near > 0


def test_bits_by_hand() -> None:
    levels = torch.tensor([0.0, 0.16, 0.17, 0.49, 0.51, 0.9, 1.0])
    thirds = torch.tensor([0, 0, 1, 1, 2, 3, 3]) / 3
    torch.testing.assert_close(defence("bits", depth=2)(levels.view(1, 1, 1, -1)).flatten(), thirds)
    assert torch.equal(defence("bits", depth=8)(IMAGES), IMAGES)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 31])
def test_median_is_scipy_s(size: int) -> None:
    expected = median_filter(PIXELS, size=(1, 1, size, size), mode="reflect")
    found = (defence("median", size=size)(IMAGES) * 255).round().byte().numpy()
    np.testing.assert_array_equal(found, expected)


def test_resize_pad_shrinks_and_places_on_black() -> None:
    images = torch.arange(56, 256).view(-1, 1, 1, 1).expand(-1, 1, 20, 20) / 255
    found = defence("resize_pad", smallest=0.5)(images, [str(row) for row in range(200)])
    sizes, corners = set(), set()
    for own, image in zip(found, images, strict=True):
        rows, columns = (torch.nonzero(own[0].any(dim=dim))[:, 0] for dim in (1, 0))
        side = (len(rows), len(columns))
        assert own.count_nonzero() == side[0] * side[1]  # one block, black around it
        assert torch.allclose(own[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], image.max(), atol=1e-5)
        sizes.add(side[0])
        assert side[0] == side[1]
        corners.add((int(rows[0]), int(columns[0])))
    assert sizes == set(range(10, 21))
    assert max(corners)[0] >= 8 and min(corners)[0] == 0 and len(corners) > 40
    whole = defence("resize_pad", smallest=1.0)(IMAGES, IDS)
    torch.testing.assert_close(whole, IMAGES)


def places(images: torch.Tensor, ids: list[str], seed: int = 0) -> list[list[int]]:
    """Where each image lies after resizing and padding: its upper left and lower right corner."""
    blocks = [own[0].nonzero() for own in defence("resize_pad", seed, smallest=0.5)(images, ids)]
    return [[*block.amin(dim=0).tolist(), *block.amax(dim=0).tolist()] for block in blocks]


def test_resize_pad_is_drawn_by_seed_and_image_id_alone() -> None:
    """Two versions of one image, such as those of two surrogates, meet the same draw, in any batch."""
    one, other = torch.full((40, 1, 20, 20), 0.3), torch.rand(40, 1, 20, 20) / 2 + 0.5
    ids = [str(row) for row in range(40)]
    drawn = places(one, ids)
    assert places(other, ids) == drawn
    assert [places(other[row : row + 1], ids[row : row + 1])[0] for row in (0, 39)] == [drawn[0], drawn[39]]
    assert places(other[20:], ids[20:]) == drawn[20:]
    assert len(set(map(tuple, drawn))) > 30  # another image, another draw
    assert places(one, ids[:1] * 40) == drawn[:1] * 40
    assert sum(map(list.__eq__, places(one, ids, seed=1), drawn)) < 5


def test_several_defences_of_one_kind_draw_independently() -> None:
    wrap, images = read_wrap("resize_pad", {"smallest": 0.5}).seeded(0), torch.ones(40, 1, 20, 20)
    first, second = (defence_function(wrap, place)(images, [str(row) for row in range(40)]) for place in (0, 1))
    assert not torch.equal(first, second)
    classifier = defended(Classifier(nn.Flatten(), (0.0,), (1.0,)), [wrap, wrap])
    assert torch.equal(classifier(images[:1], ["0"]), classifier.defences[1](first[:1], ["0"]).flatten(1))


def test_what_is_drawn_by_image_id_asks_for_ids() -> None:
    classifier = defended(Classifier(nn.Flatten(), (0.0,) * 3, (1.0,) * 3), [read_wrap("resize_pad", {}).seeded(0)])
    with pytest.raises(ValueError, match=r"resize_pad is drawn by image id: give .* as in network\(images, ids\)"):
        classifier(IMAGES)
    with pytest.raises(ValueError, match="shorter"):
        classifier(IMAGES, IDS[:5])
    of_both = Ensemble([classifier, classifier])(IMAGES, IDS)
    assert torch.equal(of_both, classifier(IMAGES, IDS))


def test_wraps_are_applied_from_the_outside_in() -> None:
    class Keeps(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen = images
            return images.flatten(1)

    classifier = Classifier(Keeps(), (0.5,) * 3, (2.0,) * 3)
    wraps = [read_wrap("median", {"size": 3}), read_wrap("bits", {"depth": 1})]
    assert defended(classifier, wraps) is classifier
    classifier(IMAGES)
    expected = defence("bits", depth=1)(defence("median", size=3)(IMAGES))
    torch.testing.assert_close(classifier.net.seen, (expected - 0.5) / 2)


def test_settings_are_completed_and_checked() -> None:
    assert read_wrap("jpeg", {}) == Wrap("jpeg", {"quality": 75})
    assert read_wrap("resize_pad", {"smallest": 1}) == Wrap("resize_pad", {"smallest": 1.0})
    for name, settings, complaint in (
        ("jpg", {}, "there is no wrap 'jpg'; did you mean 'jpeg'"),
        ("nrp", {}, "there is no wrap 'nrp'; there are: jpeg, bits, median, resize_pad"),
        ("jpeg", {"qualty": 75}, "wrap jpeg has no setting 'qualty'; did you mean 'quality'"),
        ("jpeg", {"size": 75}, "wrap jpeg has no setting 'size'; there are: quality"),
        ("jpeg", {"quality": 0}, "quality of wrap jpeg must be from 1 to 100, not 0"),
        ("bits", {"depth": 2.5}, "depth of wrap bits must be a whole number, not the number 2.5"),
        ("median", {"size": 1}, "size of wrap median must be from 2 to 31"),
        ("resize_pad", {"smallest": 1.2}, "smallest of wrap resize_pad must be from 0.01 to 1"),
    ):
        with pytest.raises(ValueError, match=complaint):
            read_wrap(name, settings)
