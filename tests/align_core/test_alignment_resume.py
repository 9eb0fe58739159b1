"""An alignment that was stopped resumes from its state with the same steps as an unbroken one, bit for bit."""

import copy
from typing import Any

import pytest
import safetensors.torch
import torch
from small_nets import assert_identical, cnn, mlp, random_batches, tensors_of

from align_core.align_config import AlignConfig, AugmentConfig, OptimizerConfig
from align_core.alignment import Alignment
from align_core.batches import Batches
from align_core.images import ImageSetConfig, open_image_set
from align_core.weights import to_bytes


class TestResume:
    @pytest.mark.parametrize(
        "optimizer", [OptimizerConfig(lr=0.05), OptimizerConfig(name="adamw", lr=0.01)], ids=["sgd", "adamw"]
    )
    @pytest.mark.parametrize(("stop", "crop"), [(0, "pad4"), (3, "pad4"), (4, "random_resized")])
    def test_is_bit_identical_to_an_unbroken_run(self, optimizer: OptimizerConfig, stop: int, crop: Any) -> None:
        config = AlignConfig(
            batch_size=16,
            epochs=2,
            label_weight=0.5,
            clip_grad_norm=1.0,
            optimizer=optimizer,
            augment=AugmentConfig(crop=crop, flip=True),
        )
        digits = open_image_set(ImageSetConfig(kind="digits"), 8)
        ids, labels = digits.listing()

        def begun(source_seed: int) -> tuple[Alignment, Batches]:
            # 3 steps per epoch, which leave 8 of the 56 images over.
            batches = Batches(digits, ids[:56], labels[:56].tolist(), config, seed=5)
            return Alignment(cnn(source_seed), [cnn(1, width=4)], config, total_steps=7, seed=5), batches

        def steps(alignment: Alignment, batches: Batches, end: int) -> list[dict[str, float]]:
            return [alignment.step(*batches[step % 6]) for step in range(alignment.step_number, end)]

        unbroken, batches = begun(0)
        reports = steps(unbroken, batches, 7)

        broken, batches = begun(0)
        first_reports = steps(broken, batches, stop)
        file = to_bytes(broken.state())
        resumed, batches = begun(source_seed=9)
        resumed.restore(safetensors.torch.load(file))
        torch.manual_seed(1234)
        assert resumed.step_number == stop
        assert first_reports + steps(resumed, batches, 7) == reports
        assert_identical(resumed.state(), unbroken.state())

    @pytest.mark.parametrize("optimizer", [OptimizerConfig(), OptimizerConfig(name="adamw")], ids=["sgd", "adamw"])
    def test_a_state_in_memory_can_be_restored_twice(self, optimizer: OptimizerConfig) -> None:
        batches = random_batches(4, 3, 2, 2, classes=5)
        config = AlignConfig(optimizer=optimizer)
        first = Alignment(mlp(0), [mlp(1)], config, total_steps=4, seed=0)
        for batch in batches[:2]:
            first.step(*batch)
        state = copy.deepcopy(first.state())
        ends = []
        for _ in range(2):
            resumed = Alignment(mlp(3), [mlp(1)], config, total_steps=4, seed=0)
            resumed.restore(state)
            for batch in batches[2:]:
                resumed.step(*batch)
            ends.append(tensors_of(resumed.source))
        assert_identical(*ends)
