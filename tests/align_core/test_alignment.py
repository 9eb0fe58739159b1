import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from align_core.alignment import AlignConfig, Alignment, Batches, NonFiniteLoss, OptimizerConfig
from align_core.augmentation import AugmentConfig
from align_core.data import ImageSetConfig, open_image_set, read_images
from align_core.errors import InputError
from align_core.weights import State, to_bytes

Batch = tuple[Tensor, Tensor]
PLAIN_SGD = OptimizerConfig(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)


def mlp(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5))


def cnn(seed: int, width: int = 8) -> nn.Sequential:
    """For 8x8 grey images, with everything that has a state of its own: BatchNorm and Dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32 * width, 10),
    )


def random_batches(count: int, *shape: int, classes: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand((8, *shape), generator=generator), torch.randint(classes, (8,), generator=generator))
        for _ in range(count)
    ]


def align(
    source: nn.Module, witnesses: Sequence[nn.Module], config: AlignConfig, batches: Sequence[Batch], seed: int = 0
) -> list[dict[str, float]]:
    alignment = Alignment(source, witnesses, config, total_steps=len(batches), seed=seed)
    return [alignment.step(images, labels) for images, labels in batches]


def tensors_of(net: nn.Module) -> State:
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_identical(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.2, momentum=0.8, nesterov=True, weight_decay=0.01)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1)


class TestStep:
    @pytest.mark.parametrize(
        ("optimizer", "by_hand"),
        [
            (OptimizerConfig(name="sgd", lr=0.2, momentum=0.8, nesterov=True, weight_decay=0.01), sgd),
            (OptimizerConfig(name="adamw", lr=0.02, weight_decay=0.1), adamw),
        ],
        ids=["sgd", "adamw"],
    )
    @pytest.mark.parametrize("witness_count", [1, 2])
    def test_equals_a_loop_written_by_hand(
        self, optimizer: OptimizerConfig, by_hand: Callable[..., torch.optim.Optimizer], witness_count: int
    ) -> None:
        batches = random_batches(6, 3, 2, 2, classes=5)
        witnesses = [mlp(seed) for seed in range(1, 1 + witness_count)]
        source = mlp(0)
        config = AlignConfig(temperature=3.0, weight=0.7, label_weight=0.4, optimizer=optimizer)
        reports = align(source, witnesses, config, batches)

        reference = mlp(0)
        optimiser = by_hand(reference.parameters())
        scheduler = CosineAnnealingLR(optimiser, T_max=len(batches))
        for (images, labels), report in zip(batches, reports, strict=True):
            logits = reference(images)
            divergences = []
            for witness in witnesses:
                target = torch.softmax(witness(images) / 3.0, dim=1)
                divergence = nn.KLDivLoss(reduction="sum")(torch.log_softmax(logits / 3.0, dim=1), target) / len(images)
                divergences.append(3.0 * 3.0 * divergence)
            alignment_loss = sum(divergences) / witness_count
            label_loss = nn.CrossEntropyLoss()(logits, labels)
            loss = 0.7 * alignment_loss + 0.4 * label_loss
            optimiser.zero_grad()
            loss.backward()
            assert report == pytest.approx(
                {
                    "lr": scheduler.get_last_lr()[0],
                    "loss": loss.item(),
                    "alignment_loss": alignment_loss.item(),
                    "label_loss": label_loss.item(),
                    "grad_norm": torch.cat([p.grad.flatten() for p in reference.parameters()]).norm().item(),
                },
                rel=1e-3,
            )
            optimiser.step()
            scheduler.step()
        for parameter, expected in zip(source.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-5)

    def test_the_gradient_is_clipped_to_a_norm(self) -> None:
        (batch,) = random_batches(1, 3, 2, 2, classes=5)
        changes, norms = [], []
        for clip in (None, 1e-3, 1e3):
            source = mlp(0)
            config = AlignConfig(clip_grad_norm=clip, optimizer=PLAIN_SGD)
            (report,) = align(source, [mlp(1)], config, [batch])
            before = nn.utils.parameters_to_vector(mlp(0).parameters())
            changes.append(nn.utils.parameters_to_vector(source.parameters()) - before)
            norms.append(report["grad_norm"])
        free, clipped, loosely_clipped = changes
        assert norms[0] > 1e-3 and norms == pytest.approx([norms[0]] * 3)  # reported as it was before clipping
        assert free.norm().item() == pytest.approx(0.1 * norms[0], rel=1e-3)  # lr times the gradient's norm
        assert clipped.norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-2)
        assert torch.cosine_similarity(clipped, free, dim=0).item() == pytest.approx(1, abs=1e-3)
        assert torch.equal(loosely_clipped, free)

    def test_batchnorm_is_updated(self) -> None:
        source = cnn(0)
        before = tensors_of(source)
        align(source, [cnn(1)], AlignConfig(batchnorm="update"), random_batches(2, 1, 8, 8, classes=10))
        moved = {name for name, value in source.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == before.keys()

    def test_batchnorm_frozen_keeps_statistics_scale_and_shift(self) -> None:
        source = cnn(0)
        before = tensors_of(source)
        align(source, [cnn(1)], AlignConfig(batchnorm="frozen"), random_batches(2, 1, 8, 8, classes=10))
        kept = {name for name, value in source.state_dict().items() if torch.equal(value, before[name])}
        assert kept == {name for name in before if name.split(".")[0] in ("1", "5")}  # the two BatchNorms

    def test_the_witness_is_frozen_and_judges_in_eval_mode(self) -> None:
        batches = random_batches(3, 1, 8, 8, classes=10)
        witness = cnn(1).train()
        before = tensors_of(witness)
        source, copied = cnn(0), cnn(0)
        reports = align(source, [witness], AlignConfig(), batches)
        assert_identical(witness.state_dict(), before)
        assert not any(part.training for part in witness.modules())
        assert not any(parameter.requires_grad for parameter in witness.parameters())
        # the same as a witness that was in eval mode from the start
        assert align(copied, [cnn(1).eval()], AlignConfig(), batches) == reports

    def test_without_a_witness_it_is_training_on_labels(self) -> None:
        batches = random_batches(5, 3, 2, 2, classes=5)
        source = mlp(0)
        config = AlignConfig(weight=0.0, label_weight=1.0, optimizer=OptimizerConfig(lr=0.2, weight_decay=0.01))
        reports = align(source, [], config, batches)
        reference = mlp(0)
        optimiser = torch.optim.SGD(reference.parameters(), lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.01)
        scheduler = CosineAnnealingLR(optimiser, T_max=5)
        for (images, labels), report in zip(batches, reports, strict=True):
            loss = nn.CrossEntropyLoss()(reference(images), labels)
            assert report["loss"] == pytest.approx(loss.item(), rel=1e-4)
            assert report["alignment_loss"] == 0
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            scheduler.step()
        for parameter, expected in zip(source.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-6)

    def test_nothing_to_learn_from(self) -> None:
        with pytest.raises(ValueError, match="nothing to learn from"):
            Alignment(mlp(0), [], AlignConfig(weight=1.0, label_weight=0.0), total_steps=1, seed=0)

    def test_a_diverging_run_stops_and_says_what_to_do(self) -> None:
        config = AlignConfig(optimizer=OptimizerConfig(lr=1e30))
        with pytest.raises(NonFiniteLoss, match=r"at step [1-9]: lower align\.optimizer\.lr, or set align\.clip"):
            align(cnn(0), [cnn(1)], config, random_batches(9, 1, 8, 8, classes=10))

    def test_dropout_depends_on_seed_step_and_rank_alone(self) -> None:
        (batch,) = random_batches(1, 1, 8, 8, classes=10)

        def loss(seed: int, step: int, rank: int, drawn_before: int) -> float:
            alignment = Alignment(cnn(0), [cnn(1)], AlignConfig(), total_steps=9, seed=seed, rank=rank)
            alignment.step_number = step
            torch.manual_seed(drawn_before)
            return alignment.step(*batch)["loss"]

        cases = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
        losses = [loss(*case, drawn_before=1) for case in cases]
        assert losses == [loss(*case, drawn_before=2) for case in cases]
        assert len(set(losses)) == 4


class TestResume:
    @pytest.mark.parametrize(
        "optimizer", [OptimizerConfig(lr=0.05), OptimizerConfig(name="adamw", lr=0.01)], ids=["sgd", "adamw"]
    )
    @pytest.mark.parametrize("stop", [0, 3])
    def test_is_bit_identical_to_an_unbroken_run(self, optimizer: OptimizerConfig, stop: int) -> None:
        config = AlignConfig(
            batch_size=16,
            epochs=2,
            label_weight=0.5,
            clip_grad_norm=1.0,
            optimizer=optimizer,
            augment=AugmentConfig(crop="pad4", flip=True),
        )
        digits = open_image_set(ImageSetConfig(kind="digits"), 8)
        ids, labels = digits.listing()

        def begun(source_seed: int) -> tuple[Alignment, Batches]:
            batches = Batches(digits, ids[:56], labels[:56].tolist(), config, seed=5)  # 3 steps an epoch, and 1 more
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


class TestBatches:
    """Image number n is n everywhere, and its label is n too, so a batch tells what it holds."""

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
        changed = [by_four[0, number] != by_four[1, number] for number in range(1, 20)]  # image 0 is black throughout
        assert sum(changed) > 15


def test_alignment_brings_the_source_to_agree_with_the_witness() -> None:
    digits = open_image_set(ImageSetConfig(kind="digits"), 8)
    ids, labels = digits.listing()
    test_images = torch.from_numpy(read_images(digits, ids[1000:])) / 255

    def run(net: nn.Module, witnesses: Sequence[nn.Module], **settings: Any) -> nn.Module:
        optimizer = OptimizerConfig(name="adamw", lr=5e-3)
        config = AlignConfig(
            batch_size=50, optimizer=optimizer, augment=AugmentConfig(crop="none", flip=False), **settings
        )
        align(net, witnesses, config, list(Batches(digits, ids[:1000], labels[:1000].tolist(), config, seed=0)))
        return net.eval()

    def agreement() -> float:
        with torch.no_grad():
            return (source(test_images).argmax(1) == witness(test_images).argmax(1)).float().mean().item()

    source = run(cnn(0), [], weight=0.0, label_weight=1.0, epochs=1)
    witness = run(cnn(1, width=4), [], weight=0.0, label_weight=1.0, epochs=4)
    before = agreement()
    run(source, [witness], temperature=4.0, epochs=4)
    assert agreement() > before + 0.1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"loss": "kldiv"}, "there is no alignment loss 'kldiv'"),
        ({"temperature": 0.0}, "temperature"),
        ({"weight": 0.0, "label_weight": 0.0}, "not both 0"),
        ({"weight": -1.0, "label_weight": 2.0}, "0 or more"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"checkpoint_steps": 0}, "at least 1"),
        ({"batch_size": 9, "workers": 2}, "multiple of workers"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm"),
    ],
)
def test_alignment_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AlignConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum"),
    ],
)
def test_optimiser_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        OptimizerConfig(**settings)
