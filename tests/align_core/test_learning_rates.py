"""Learning rates by hand: warm-up, schedules and layer-wise decay; and parameters that are frozen by name."""

import math
from typing import Any

import habits
import pytest
import timm
import torch
from small_nets import cnn, mlp, random_batches, tensors_of
from timm.optim import param_groups_layer_decay
from torch import nn

from align_core.align_config import AlignConfig, OptimizerConfig
from align_core.alignment import Alignment
from align_core.errors import InputError
from align_core.layer_rates import freeze, shares
from align_core.model_config import ModelConfig, TrainConfig
from align_core.models import Classifier, build

BATCHES = random_batches(12, 3, 2, 2, classes=5)
SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}


class TestSchedule:
    def rates(self, total: int, steps_per_epoch: int | None = None, **optimizer: Any) -> list[float]:
        config = AlignConfig(epochs=10, optimizer=OptimizerConfig(lr=0.5, **optimizer))
        alignment = Alignment(mlp(0), [mlp(1)], config, total, seed=0, steps_per_epoch=steps_per_epoch)
        return [alignment.step(*BATCHES[step])["lr"] for step in range(total)]

    def test_cosine(self) -> None:
        assert self.rates(4) == pytest.approx([0.25 * (1 + math.cos(math.pi * step / 4)) for step in range(4)])

    def test_constant(self) -> None:
        assert self.rates(5, schedule="constant") == [0.5] * 5

    def test_warmup_rises_in_equal_steps_and_the_cosine_follows(self) -> None:
        # Three steps of warm-up, of 0.5 epochs of 6 steps, and then a cosine over the 9 that are left.
        rising = [0.125, 0.25, 0.375]
        falling = [0.25 * (1 + math.cos(math.pi * step / 9)) for step in range(9)]
        assert falling[0] == 0.5
        assert self.rates(12, 6, warmup=0.5) == pytest.approx(rising + falling)

    def test_warmup_before_a_constant_rate(self) -> None:
        assert self.rates(6, 3, warmup=1.0, schedule="constant") == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])

    def test_an_epoch_is_the_whole_run_unless_it_is_said(self) -> None:
        assert self.rates(6, warmup=0.5, schedule="constant") == self.rates(6, 6, warmup=0.5, schedule="constant")

    def test_a_warmup_that_is_longer_than_the_run_ends_with_it(self) -> None:
        assert self.rates(4, 4, warmup=9.0) == pytest.approx([0.125, 0.25, 0.375, 0.5])

    def test_the_rate_reaches_every_group_by_its_share(self) -> None:
        config = AlignConfig(optimizer=OptimizerConfig(lr=0.5, warmup=0.5, layer_decay=0.5))
        alignment = Alignment(mlp(0), [mlp(1)], config, 4, seed=0)
        alignment.step(*BATCHES[0])
        found = {own["share"]: own["lr"] for own in alignment.optimizer.param_groups}
        assert found == pytest.approx({0.5: 0.5 / 3 * 0.5, 1.0: 0.5 / 3})


class TestLayerDecay:
    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("resnet18", {}),
            ("test_vit", {"img_size": 32}),
            ("test_convnext", {}),
            ("swin_tiny_patch4_window7_224", SWIN),
        ],
    )
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_equals_timms(self, name: str, arguments: dict[str, Any], wrapped: bool) -> None:
        net = timm.create_model(name, num_classes=5, **arguments)
        expected = {
            id(own): group["lr_scale"]
            for group in param_groups_layer_decay(net, layer_decay=0.7)
            for own in group["params"]
        }
        source = Classifier(net, (0.5,) * 3, (0.5,) * 3) if wrapped else net
        parameters = list(source.parameters())
        found = shares(source, parameters, 0.7)
        assert found == pytest.approx([expected[id(own)] for own in parameters])
        assert len(set(found)) > 5 and max(found) == 1

    def test_of_other_networks_goes_by_the_parts_that_have_parameters(self) -> None:
        source = cnn(0)
        found = dict(
            zip(
                [name for name, _ in source.named_parameters()],
                shares(source, list(source.parameters()), 0.5),
                strict=True,
            )
        )
        layers = {"0": 1 / 16, "1": 1 / 8, "4": 1 / 4, "5": 1 / 2, "9": 1.0}
        assert found == {name: layers[name.split(".")[0]] for name in found}

    def test_of_1_trains_all_alike(self) -> None:
        assert shares(cnn(0), list(cnn(0).parameters()), 1.0) == [1.0] * 10

    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_a_step_is_smaller_by_the_share(self, optimizer: str) -> None:
        """And a decay of the weights with it, as in torch a group's rate multiplies both."""
        moves = []
        for decay in (1.0, 0.5):
            source = mlp(0)
            before = tensors_of(source)
            config = OptimizerConfig(name=optimizer, lr=0.1, layer_decay=decay, weight_decay=0.01)
            Alignment(source, [mlp(1)], AlignConfig(optimizer=config), 2, seed=0).step(*BATCHES[0])
            moves.append({name: value - before[name] for name, value in source.state_dict().items()})
        for name, move in moves[0].items():
            share = 0.5 if name.startswith("1.") else 1.0
            torch.testing.assert_close(moves[1][name], share * move, rtol=1e-3, atol=1e-7)

    def test_projections_learn_at_the_full_rate(self) -> None:
        def net(width: int) -> nn.Sequential:
            torch.manual_seed(width)
            return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Tanh(), nn.Linear(width, 5))

        config = AlignConfig(loss="hint", optimizer=OptimizerConfig(lr=0.1, layer_decay=0.5))
        alignment = Alignment(net(8), [net(6)], config, 2, seed=0, shape=(3, 2, 2))
        groups = {
            own["share"]: [tuple(each.shape) for each in own["params"]] for own in alignment.optimizer.param_groups
        }
        assert groups == {0.5: [(8, 12), (8,)], 1.0: [(5, 8), (5,), (6, 8), (6,)]}
        assert math.isfinite(alignment.step(*BATCHES[0])["loss"])


class TestFreeze:
    def frozen(self, source: nn.Module, patterns: list[str]) -> set[str]:
        freeze(source, patterns)
        return {name for name, own in source.named_parameters() if not own.requires_grad}

    def classifier(self) -> Classifier:
        return build(ModelConfig(factory="habits:PartlyFrozen", train=TrainConfig()), habits.CLASSES, 3)

    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            ([], set()),
            (["0.weight"], {"0.weight"}),
            (["0.*", "9.bias"], {"0.weight", "0.bias", "9.bias"}),
            (["*bias"], {"0.bias", "1.bias", "4.bias", "5.bias", "9.bias"}),
        ],
    )
    def test_by_pattern(self, patterns: list[str], expected: set[str]) -> None:
        assert self.frozen(cnn(0), patterns) == expected

    def test_names_are_those_within_a_classifier_and_what_it_froze_stays_so(self) -> None:
        always = {"net.body.0.weight", "net.body.0.bias", "net.body.1.weight", "net.body.1.bias"}
        assert self.frozen(self.classifier(), []) == always
        assert self.frozen(self.classifier(), ["head.bias"]) == {*always, "net.head.bias"}

    def test_everything_else_is_trained_though_it_was_frozen_to_predict(self) -> None:
        assert self.frozen(cnn(0).requires_grad_(False), ["0.*"]) == {"0.weight", "0.bias"}

    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    @pytest.mark.parametrize("layer_decay", [1.0, 0.5])
    def test_what_is_frozen_stays_to_the_bit_and_the_rest_moves(self, optimizer: str, layer_decay: float) -> None:
        source = cnn(0)
        before = tensors_of(source)
        config = OptimizerConfig(name=optimizer, lr=0.1, weight_decay=0.1, layer_decay=layer_decay)
        settings = AlignConfig(freeze=["4.*", "1.weight"], optimizer=config, keep="swa", update="sam")
        alignment = Alignment(source, [cnn(1)], settings, 3, seed=0)
        for images, labels in random_batches(3, 1, 8, 8, classes=10):
            alignment.step(images, labels)
        kept = {name for name, own in source.named_parameters() if torch.equal(own, before[name])}
        assert kept == {"4.weight", "4.bias", "1.weight"}

    @pytest.mark.parametrize(
        ("patterns", "message"),
        [
            (
                ["layer1.*"],
                "freeze: no parameter is called 'layer1.\\*'; there are 1.weight, 1.bias, 3.weight and 1 more",
            ),
            (["1.*", "2.*"], "freeze: no parameter is called '2.\\*'"),
            (["*"], "freeze: every parameter is frozen, so that nothing would be trained"),
        ],
    )
    def test_refusals(self, patterns: list[str], message: str) -> None:
        with pytest.raises(InputError, match=message):
            Alignment(mlp(0), [mlp(1)], AlignConfig(freeze=patterns), 1, seed=0)

    @pytest.mark.parametrize("pattern", ["0.*", "2.*", "2.weight"])
    def test_what_is_tied_is_frozen_by_any_of_its_names(self, pattern: str) -> None:
        first = nn.Linear(4, 4, bias=False)
        source = nn.Sequential(first, nn.ReLU(), first, nn.Linear(4, 2))
        assert self.frozen(source, [pattern]) == {"0.weight"}

    def test_nothing_is_left_beside_frozen_batchnorms(self) -> None:
        source = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
        settings = AlignConfig(freeze=["0.*", "3.*"], batchnorm="frozen")
        message = r"freeze: every parameter is frozen, or of a BatchNorm \(batchnorm: frozen\), so that nothing"
        with pytest.raises(InputError, match=message):
            Alignment(source, [mlp(1)], settings, 1, seed=0)

    def test_a_message_counts_no_more_than_there_are(self) -> None:
        with pytest.raises(InputError, match=r"there are weight, bias$"):
            freeze(nn.Linear(2, 2), ["x"])
