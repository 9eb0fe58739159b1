"""A step whose images go through the networks in parts, against the same step in one."""

from typing import Any

import pytest
import torch
from small_nets import cnn, mlp, random_batches

from align_core.align_config import AlignConfig, OptimizerConfig, training_of
from align_core.alignment import Alignment
from align_core.errors import InputError
from align_core.losses import LOSSES

SGD = OptimizerConfig(lr=0.1, momentum=0.0, nesterov=False)
BATCHES = random_batches(2, 3, 2, 2, classes=5)


def trained(**settings: Any) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """The weights of a small network after two steps, and what the steps said."""
    source = mlp(0)
    align = AlignConfig(optimizer=SGD, **settings)
    alignment = Alignment(source, [mlp(1)], align, total_steps=4, seed=0)
    said = [alignment.step(*batch) for batch in BATCHES]
    return torch.cat([own.detach().flatten() for own in source.parameters()]), said


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_weight": 0.5, "label_smoothing": 0.1},
        {"mix": "mixup", "label_weight": 1.0},
        {"terms": ["input_gradient"]},
        {"update": "sam"},
    ],
    ids=lambda own: next(iter(own), "plain"),
)
@pytest.mark.parametrize("accumulate", [2, 3])
def test_parts_add_up_to_the_step(settings: dict[str, Any], accumulate: int) -> None:
    """Also where they differ in size: three parts of these batches do."""
    (whole, said), (added, also) = trained(**settings), trained(**settings, accumulate=accumulate)
    assert len(BATCHES[0][0]) % 3
    torch.testing.assert_close(added, whole, rtol=1e-4, atol=1e-6)
    assert [pytest.approx(own, rel=1e-4) for own in said] == also


def test_batchnorm_sees_one_part_at_a_time() -> None:
    images, labels = torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0)), torch.arange(4)
    whole, parts = (cnn(0) for _ in range(2))
    for source, accumulate in ((whole, 1), (parts, 2)):
        Alignment(source, [cnn(1)], AlignConfig(accumulate=accumulate), total_steps=1, seed=0).step(images, labels)
    moved = [
        next(own for name, own in net.named_buffers() if name.endswith("batches_tracked")) for net in (whole, parts)
    ]
    assert moved == [1, 2]


@pytest.mark.parametrize(("loss", "least"), [(name, own.least) for name, own in LOSSES.items() if not own.per_image])
def test_a_loss_that_compares_images_needs_several_at_once(loss: str, least: int) -> None:
    """Of fewer it is constant, or one of its two terms is, so that less would be aligned, without a word."""
    for rows in (least, least - 1):
        source, images, labels = mlp(0), BATCHES[0][0][:rows], torch.arange(rows) % 2
        alignment = Alignment(source, [mlp(1)], AlignConfig(loss=loss), total_steps=2, seed=0, shape=(3, 2, 2))
        assert (alignment.step(images, labels)["grad_norm"] > 1e-6) == (rows == least or loss == "ega")
    AlignConfig(loss=loss, batch_size=2 * least, accumulate=2).check_images(100)
    for config, images in (
        (AlignConfig(loss=loss, batch_size=2 * least, accumulate=3), 100),
        (AlignConfig(loss=loss), least - 1),
    ):
        with pytest.raises(InputError, match=f"batch_size: {loss} compares {least} or more images with each other"):
            config.check_images(images)


def test_it_decides_the_weights_and_how_many_images_are_tried() -> None:
    assert AlignConfig(accumulate=2).deciding == {"accumulate": 2} and AlignConfig(accumulate=1).deciding == {}
    assert training_of(AlignConfig(batch_size=64, workers=2, accumulate=4), 1_000).rows == 8


def test_more_parts_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="accumulate 9 is more than the 8 images of a step that a worker has"):
        AlignConfig(batch_size=16, workers=2, accumulate=9)
