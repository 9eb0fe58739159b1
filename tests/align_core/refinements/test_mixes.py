"""Mixed images: whose pixels they are made of, and how their two labels are weighed."""

import pytest
import torch
from small_nets import Batch, mlp, random_batches
from torch import Tensor
from torch.nn import functional as F

from align_core.align_config import AlignConfig
from align_core.alignment import Alignment
from align_core.refinements.cutmix import cutmix
from align_core.refinements.mixed import Mixed
from align_core.refinements.mixup import mixup


def numbered(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Images that hold their own number at every pixel, which is their label, too."""
    labels = torch.arange(count)
    return labels.float().view(-1, 1, 1, 1).expand(count, 3, height, width).contiguous(), labels


class TestCutmix:
    @pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 12)])
    def test_the_share_is_the_area_that_is_an_images_own(self, height: int, width: int) -> None:
        images, labels = numbered(6, height, width)
        shares = []
        for seed in range(60):
            torch.manual_seed(seed)
            mixed = cutmix(images, labels, alpha=1.0)
            boxes = set()
            for image, label, other in zip(mixed.images_BCHW, labels, mixed.others_B, strict=True):
                assert set(image.unique().tolist()) <= {float(label), float(other)}
                if label != other:
                    own = (image == label).all(dim=0)
                    assert own.float().mean().item() == pytest.approx(mixed.share)
                    box = (~own).nonzero()
                    boxes.add((*box.amin(dim=0).tolist(), *box.amax(dim=0).tolist()) if len(box) else ())
                    if len(box):  # the pixels of another image fill a box
                        assert len(box) == (box.amax(dim=0) - box.amin(dim=0) + 1).prod()
            assert len(boxes) <= 1  # the same for all images
            assert sorted(mixed.others_B.tolist()) == labels.tolist()
            shares.append(mixed.share)
        assert 0 <= min(shares) < 0.5 and 0.9 < max(shares) <= 1

    def test_large_alphas_halve_images_and_small_ones_leave_or_replace_them(self) -> None:
        def shares(alpha: float) -> Tensor:
            torch.manual_seed(0)
            return torch.tensor([cutmix(*numbered(4, 64, 64), alpha=alpha).share for _ in range(200)])

        usual = shares(100.0)  # of a half, more where the box is cut off at an edge
        assert usual.min() > 0.4 and 0.5 < usual.mean() < 0.75 and usual.max() < 0.9
        extreme = shares(0.01)
        assert ((extreme > 0.99) | (extreme < 0.8)).float().mean() > 0.9

    def test_leaves_the_images_that_it_was_given(self) -> None:
        images, labels = numbered(4, 8, 8)
        cutmix(images, labels, alpha=1.0)
        assert torch.equal(images, numbered(4, 8, 8)[0])


class TestMixup:
    def test_pixels_are_averaged_by_the_share(self) -> None:
        images, labels = numbered(6, 8, 8)
        shares = []
        for seed in range(40):
            torch.manual_seed(seed)
            mixed = mixup(images, labels, alpha=1.0)
            expected = mixed.share * labels + (1 - mixed.share) * mixed.others_B
            torch.testing.assert_close(mixed.images_BCHW, expected.view(-1, 1, 1, 1).expand_as(images))
            assert sorted(mixed.others_B.tolist()) == labels.tolist()
            shares.append(mixed.share)
        assert 0 <= min(shares) < 0.15 and 0.85 < max(shares) <= 1


@pytest.mark.parametrize("mix", [cutmix, mixup])
def test_a_batch_of_one_is_mixed_with_itself(mix) -> None:  # type: ignore[no-untyped-def]
    images, labels = numbered(2, 8, 8)
    mixed = mix(images[1:], labels[1:], alpha=1.0)
    torch.testing.assert_close(mixed.images_BCHW, images[1:])
    assert mixed.others_B.tolist() == [1]


def drawn(seed: int, mix, batch: Batch) -> Mixed:  # type: ignore[no-untyped-def]
    """What the first step of an alignment with this seed mixes."""
    torch.manual_seed(hash((seed, 0, 0)) % (1 << 63))
    return mix(*batch, alpha=2.0)


@pytest.mark.parametrize(("name", "mix"), [("cutmix", cutmix), ("mixup", mixup)])
def test_a_step_learns_from_mixed_images_and_both_labels_and_the_teacher_sees_the_same(name: str, mix) -> None:  # type: ignore[no-untyped-def]
    (batch,) = random_batches(1, 1, 3, 4, classes=5)
    config = AlignConfig(label_weight=0.5, label_smoothing=0.1, mix={"name": name, "alpha": 2.0}, temperature=2.0)
    seed = next(seed for seed in range(99) if 0 < drawn(seed, mix, batch).share < 1)  # small boxes may be empty
    report = Alignment(mlp(0), [mlp(1)], config, total_steps=3, seed=seed).step(*batch)

    mixed = drawn(seed, mix, batch)
    logits, taught = mlp(0)(mixed.images_BCHW), mlp(1)(mixed.images_BCHW)
    targets = mixed.share * F.one_hot(batch[1], 5) + (1 - mixed.share) * F.one_hot(mixed.others_B, 5)
    label_loss = -((0.9 * targets + 0.1 / 5) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    p = (taught / 2).softmax(dim=1)
    alignment_loss = 4 * (p * (p.log() - (logits / 2).log_softmax(dim=1))).sum(dim=1).mean()
    assert report["label_loss"] == pytest.approx(label_loss.item(), rel=1e-5)
    assert report["alignment_loss"] == pytest.approx(alignment_loss.item(), rel=1e-4)
    assert report["loss"] == pytest.approx((alignment_loss + 0.5 * label_loss).item(), rel=1e-4)
