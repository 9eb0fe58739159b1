"""Which images the batch of a training step contains, on one worker and on several."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import Batch

from align_core.align_config import AlignConfig, AugmentConfig
from align_core.batches import Batches
from align_core.errors import InputError
from align_core.images import ImageSetConfig, open_image_set


class TestBatches:
    """Every pixel of image n is n, and so is its label, which makes the content of a batch readable."""

    def batches(self, tmp_path: Path, count: int = 23, seed: int = 0, rank: int = 0, world: int = 1, **settings: Any):
        images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 12, 12))
        np.savez(tmp_path / "n.npz", images=images, labels=np.arange(count))
        images = open_image_set(ImageSetConfig(kind="npz", path=str(tmp_path / "n.npz")), 12)
        ids, labels = images.listing()
        config = AlignConfig(
            **{"batch_size": 5, "epochs": 3, "augment": AugmentConfig(crop="none", flip=False), **settings}
        )
        return Batches(images, ids, labels.tolist(), config, seed, rank, world)

    def held(self, batch: Batch) -> list[int]:
        images, labels = batch
        assert images.dtype == torch.float32 and images.shape == (len(labels), 1, 12, 12)
        assert labels.dtype == torch.int64
        assert torch.equal(images, (labels / 255).view(-1, 1, 1, 1).expand_as(images))
        return labels.tolist()

    def test_an_epoch_meets_each_image_at_most_once(self, tmp_path: Path) -> None:
        batches = self.batches(tmp_path)
        assert len(batches) == 12
        for epoch in range(3):
            met = [self.held(batches[4 * epoch + number]) for number in range(4)]
            assert [len(batch) for batch in met] == [5, 5, 5, 5]
            assert len(set().union(*met)) == 20

    def test_other_images_are_left_over_in_every_epoch(self, tmp_path: Path) -> None:
        met = [self.held(batch) for batch in self.batches(tmp_path, epochs=20)]
        assert set().union(*met) == set(range(23))

    @pytest.mark.parametrize("limit", [1, 6, 30])
    def test_a_given_number_of_steps_takes_the_same_batches_whatever_the_epochs(
        self, tmp_path: Path, limit: int
    ) -> None:
        usual = [self.held(batch) for batch in self.batches(tmp_path, epochs=8)]
        limited = [self.held(batch) for batch in self.batches(tmp_path, epochs=1, limit_steps=limit)]
        assert limited == usual[:limit] and len(limited) == limit

    def test_order_depends_on_seed_and_epoch(self, tmp_path: Path) -> None:
        one, same, other = (
            [self.held(batch) for batch in self.batches(tmp_path, seed=seed, batch_size=23)] for seed in (0, 0, 1)
        )
        assert one == same
        assert len({tuple(order) for order in [*one, *other, list(range(23))]}) == 7

    def test_any_step_can_be_asked_for_directly(self, tmp_path: Path) -> None:
        settings = {"augment": AugmentConfig(crop="pad4", flip=True)}
        in_order = list(self.batches(tmp_path, **settings))
        for step in (11, 4, 7):
            for direct, met in zip(self.batches(tmp_path, **settings)[step], in_order[step], strict=True):
                assert torch.equal(direct, met)

    @pytest.mark.parametrize("step", [-1, 12])
    def test_there_is_no_further_step(self, tmp_path: Path, step: int) -> None:
        with pytest.raises(IndexError):
            self.batches(tmp_path)[step]

    def test_workers_share_the_batch_of_one(self, tmp_path: Path) -> None:
        settings = {"batch_size": 6, "workers": 2, "augment": AugmentConfig(crop="pad4", flip=True)}
        alone, *both = (
            self.batches(tmp_path, rank=rank, world=world, **settings) for rank, world in ((0, 1), (0, 2), (1, 2))
        )
        assert len(alone) == len(both[0]) == len(both[1]) == 9
        for step in range(9):
            images, labels = alone[step]
            for rank in range(2):
                shared_images, shared_labels = both[rank][step]
                assert len(shared_labels) == 3
                assert torch.equal(shared_images, images[rank::2])
                assert torch.equal(shared_labels, labels[rank::2])

    def test_a_set_smaller_than_a_batch_is_one_batch(self, tmp_path: Path) -> None:
        batches = self.batches(tmp_path, count=3, epochs=2)
        assert [sorted(self.held(batch)) for batch in batches] == [[0, 1, 2], [0, 1, 2]]

    def test_workers_get_equal_shares_of_a_small_set(self, tmp_path: Path) -> None:
        settings = {"count": 3, "world": 2, "batch_size": 4, "workers": 2, "epochs": 1}
        shares = [self.held(self.batches(tmp_path, rank=rank, **settings)[0]) for rank in range(2)]
        assert [len(share) for share in shares] == [1, 1]
        assert shares[0] != shares[1]

    def test_too_few_images_for_the_workers(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="1 training images are too few for 2 workers"):
            self.batches(tmp_path, count=1, world=2, batch_size=4, workers=2)

    def test_augmentation_depends_on_epoch_and_image_not_on_the_batch(self, tmp_path: Path) -> None:
        def pictures(batch_size: int) -> dict[tuple[int, int], bytes]:
            batches = self.batches(
                tmp_path, count=20, batch_size=batch_size, augment=AugmentConfig(crop="pad4", flip=False), epochs=2
            )
            return {
                (step * batch_size // 20, int(label)): image.numpy().tobytes()
                for step, batch in enumerate(batches)
                for image, label in zip(*batch, strict=True)
            }

        by_four, by_ten = pictures(4), pictures(10)
        assert len(by_four) == 40
        assert by_four == by_ten
        # Image 0 is black throughout, so that its crops cannot differ.
        changed = [by_four[0, number] != by_four[1, number] for number in range(1, 20)]
        assert sum(changed) > 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0]}, "2 image ids and 1 labels: give a label for each id"),
        ({"image_ids": "ab"}, "in lists"),
        ({"rank": 1}, "rank 1 is none of 1 workers"),
        ({"rank": -1}, "rank -1 is none of 1 workers"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    images = open_image_set(ImageSetConfig(kind="digits"), 8)
    with pytest.raises(InputError, match=message):
        Batches(
            **{
                "images": images,
                "image_ids": ["00000", "00001"],
                "labels": [0, 1],
                "align": AlignConfig(),
                "seed": 0,
                **changes,
            }
        )
