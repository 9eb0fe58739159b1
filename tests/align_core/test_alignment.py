"""A step of the alignment equals a step written by hand, and training leads to agreement with the witness."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from small_nets import Batch, assert_identical, cnn, mlp, random_batches, tensors_of
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from align_core.align_config import AlignConfig, AugmentConfig, OptimizerConfig
from align_core.alignment import Alignment, NonFiniteLoss
from align_core.batches import Batches
from align_core.images import ImageSetConfig, open_image_set, read_images

PLAIN_SGD = OptimizerConfig(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)


def align(
    source: nn.Module, witnesses: Sequence[nn.Module], config: AlignConfig, batches: Sequence[Batch], seed: int = 0
) -> list[dict[str, float]]:
    alignment = Alignment(source, witnesses, config, total_steps=len(batches), seed=seed)
    return [alignment.step(images, labels) for images, labels in batches]


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
        assert norms[0] > 1e-3 and norms == pytest.approx([norms[0]] * 3)  # the norm before clipping is reported
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
        # The same as with a witness that was in eval mode from the start.
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
        config = AlignConfig(label_weight=1.0, terms=["self_adversarial"])
        with pytest.raises(ValueError, match="self_adversarial aligns the source to its teacher, and there is no"):
            Alignment(mlp(0), [], config, total_steps=1, seed=0)

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


class TestDoor:
    """What would align nonsense is refused before the first step."""

    CONFIG = AlignConfig(label_weight=0.5)

    @pytest.mark.parametrize(
        ("witnesses", "steps", "message"),
        [
            (nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), 1, "witnesses must be a list of modules"),
            ([], 0, "total_steps must be at least 1, not 0"),
        ],
    )
    def test_arguments(self, witnesses: Any, steps: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Alignment(mlp(0), witnesses, self.CONFIG, total_steps=steps, seed=0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda images, labels: (images * 255, labels), "divide 8-bit images by 255"),
            (lambda images, labels: (images - 1, labels), r"pixels must lie in \[0, 1\]"),
            (lambda images, labels: ((images * 255).to(torch.uint8), labels), "takes float pixels .* not torch.uint8"),
            (lambda images, labels: (images, labels[:1]), r"and labels \(1,\)"),
            (lambda images, labels: (images, labels - 100), "labels are numbers of classes, from 0, and one is -"),
        ],
    )
    def test_a_batch(self, change: Any, message: str) -> None:
        alignment = Alignment(mlp(0), [mlp(1)], self.CONFIG, total_steps=1, seed=0)
        with pytest.raises(ValueError, match=message):
            alignment.step(*change(*random_batches(1, 3, 2, 2, classes=5)[0]))

    def test_a_witness_that_is_part_of_the_source(self) -> None:
        source = mlp(0)
        for witness in (source, nn.Sequential(source, nn.Identity())):
            with pytest.raises(ValueError, match="shares parameters with the source"):
                Alignment(source, [mlp(1), witness], self.CONFIG, total_steps=1, seed=0)

    def test_more_steps_than_were_announced(self) -> None:
        alignment = Alignment(mlp(0), [mlp(1)], self.CONFIG, total_steps=1, seed=0)
        (batch,) = random_batches(1, 3, 2, 2, classes=5)
        alignment.step(*batch)
        with pytest.raises(ValueError, match="all 1 steps are taken"):
            alignment.step(*batch)
