"""A model is tried as it will be used: what would break hours later breaks here, and what is odd is said."""

import warnings
from typing import Any, get_args

import habits
import pytest
import torch
from habits import CLASSES, SHAPE, Changed, Plain
from torch import nn

from align_core.align_config import AlignConfig, OptimizerConfig, Training, training_of
from align_core.errors import InputError
from align_core.model_config import Precision
from align_core.models import Classifier
from align_core.trial import Trial, try_model

TWO, ONE = Training("sgd", "update", 2), Training("sgd", "update", 1)
HALF = (0.5, 0.5, 0.5)


def classifier_of(net: nn.Module) -> Classifier:
    return Classifier(net, HALF, HALF).eval().requires_grad_(False)


def tried(net: nn.Module, crafted_on: bool = True, *trainings: Training) -> Trial:
    return try_model(classifier_of(net), "m", SHAPE, CLASSES, crafted_on=crafted_on, trainings=trainings)


def test_a_sound_model_passes_without_a_word_and_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    classifier = classifier_of(Plain()).train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    random_state = torch.get_rng_state()
    trial = try_model(classifier, "m", SHAPE, CLASSES, crafted_on=True, trainings=[TWO, Training("adamw", "frozen", 9)])
    assert (trial.notes, trial.unused_parameters, len(trial.folded)) == ([], False, 1)
    assert 0 <= trial.folding_difference < 1e-5
    assert classifier.training
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_model_is_tried_in_every_precision(precision: Precision) -> None:
    classifier = classifier_of(Plain())
    classifier.precision = precision
    trial = try_model(classifier, "m", SHAPE, CLASSES, crafted_on=True, trainings=[TWO])
    assert trial.notes == [] and len(trial.folded) == 1


class TestPredictions:
    def test_another_number_of_classes(self) -> None:
        with pytest.raises(InputError, match=r"models\.m: returns \(1, 4\) for one image, not \(1, 10\).*data.classes"):
            try_model(classifier_of(Plain()), "m", SHAPE, 10)

    def test_another_number_of_channels(self) -> None:
        with pytest.raises(InputError, match=r"models\.m: mean and std are for 3 channels, the images have 1"):
            try_model(classifier_of(Plain()), "m", (1, 8, 8), CLASSES)

    def test_images_that_the_network_cannot_take(self) -> None:
        with pytest.raises(InputError, match=r"models\.m: cannot take images of \(3, 9, 9\)"):
            try_model(classifier_of(habits.linear()), "m", (3, 9, 9), CLASSES)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("name", ["head.weight", "body.1.running_var"])
    def test_weights_that_are_not_finite(self, name: str, value: float) -> None:
        net = Plain()
        net.state_dict()[name].view(-1)[0] = value
        with pytest.raises(
            InputError, match=rf"models\.m: its weights are not finite: there is NaN or infinity in {name}"
        ):
            tried(net)

    def test_a_mask_may_hold_infinity(self) -> None:
        net = Plain()
        net.register_buffer("mask", torch.tensor([float("-inf"), 0.0]))
        assert tried(net).notes == []
        net.mask[1] = float("nan")
        with pytest.raises(InputError, match="NaN or infinity in mask"):
            tried(net)

    def test_logits_that_are_not_finite(self) -> None:
        with pytest.raises(InputError, match=r"models\.m: its logits are NaN or infinite on an image"):
            tried(Changed(after=lambda logits: (logits - 100).log()))

    def test_dropout_left_on(self) -> None:
        (note,) = tried(Changed(after=lambda logits: nn.functional.dropout(logits + 1, 0.5))).notes
        assert "differ when it is asked twice" in note

    def test_logits_that_depend_on_the_batch(self) -> None:
        (note,) = tried(Changed(after=lambda logits: logits - logits.mean(0))).notes
        assert "depend on the other images of the batch" in note

    @pytest.mark.parametrize("net", [habits.Viewing, habits.Striding, habits.InFrames])
    def test_a_network_that_the_faster_layout_breaks(self, net: Any) -> None:
        trial = tried(net(), True, TWO)
        assert trial == Trial([], unused_parameters=False, channels_last=False)
        assert tried(Plain(), True, TWO).channels_last

    def test_a_network_is_tried_in_the_precision_in_which_it_is_used(self) -> None:
        classifier = classifier_of(habits.BrokenInBfloat16())
        try_model(classifier, "m", SHAPE, CLASSES)
        classifier.precision = "bf16"
        with pytest.raises(InputError, match=r"models\.m: .*BFloat16"):
            try_model(classifier, "m", SHAPE, CLASSES)

    def test_rounding_to_bfloat16_is_no_random_part(self) -> None:
        classifier = classifier_of(Plain())
        classifier.precision = "bf16"
        assert try_model(classifier, "m", SHAPE, CLASSES).notes == []

    def test_probabilities_instead_of_logits(self) -> None:
        (note,) = tried(Changed(after=lambda logits_BK: logits_BK.softmax(dim=1))).notes
        assert "its outputs look like probabilities" in note and "leave out its softmax" in note
        assert tried(Changed(after=lambda logits_BK: logits_BK.log_softmax(dim=1))).notes == []

    def test_whole_numbers(self) -> None:
        with pytest.raises(InputError, match=r"returns whole numbers \(torch.int64\), not logits"):
            tried(Changed(after=lambda logits_BK: logits_BK.long()))

    def test_complex_numbers(self) -> None:
        with pytest.raises(InputError, match="complex numbers, not logits"):
            tried(Changed(after=lambda logits_BK: torch.complex(logits_BK, logits_BK)))

    def test_logits_of_one_image_for_two(self) -> None:
        with pytest.raises(InputError, match=r"returns \(1, 4\) for two images"):
            tried(Changed(after=lambda logits: logits[:1]))

    @pytest.mark.parametrize(
        "after", [habits.as_dict, habits.as_object, habits.as_outputs, lambda x: [x], lambda x: (x, 1)]
    )
    def test_logits_within_something(self, after: Any) -> None:
        assert tried(Changed(after=after)).notes == []

    @pytest.mark.parametrize("after", [lambda x: {"a": x, "b": x}, lambda x: (), lambda x: "cat", lambda x: [1, x]])
    def test_no_logits(self, after: Any) -> None:
        with pytest.raises(
            InputError, match=r"cannot take images .* TypeError: the network returns a .* without logits"
        ):
            tried(Changed(after=after))

    def test_a_network_that_exits(self) -> None:
        with pytest.raises(InputError, match="predicting raises SystemExit: 0"):
            tried(Changed(before=lambda images: raise_(SystemExit(0))))

    def test_the_user_may_interrupt(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            tried(Changed(before=lambda images: raise_(KeyboardInterrupt())))

    def test_state_that_is_no_tensor(self) -> None:
        with pytest.raises(InputError, match="state_dict\\(\\) holds _extra_state, which is not a tensor"):
            tried(habits.ExtraState())


class TestInputGradient:
    @pytest.mark.parametrize(
        ("net", "complaint"),
        [
            (habits.NoGrad, "no gradient with respect to the image"),
            (habits.Inference, "no gradient with respect to the image"),
            (lambda: Changed(before=lambda x: x.detach()), "no gradient with respect to the image"),
            (lambda: Changed(after=lambda x: torch.from_numpy(x.numpy())), "RuntimeError: Can't call numpy"),
            (lambda: Changed(before=lambda x: (255 * x).round() / 255), "zero everywhere, on 2 random images"),
            (lambda: Changed(after=lambda x: (1000 * x).sign()), "zero everywhere, on 2 random images"),
            (lambda: Changed(before=lambda x: (x - x).abs().sqrt()), "is NaN or infinite"),
        ],
    )  # fmt: skip
    def test_it_is_needed_where_images_are_crafted(self, net: Any, complaint: str) -> None:
        with pytest.raises(InputError, match=rf"models\.m: adversarial images cannot be crafted on it: .*{complaint}"):
            tried(net())
        assert [note for note in tried(net(), False).notes if "not folded" not in note] == []


class TestTraining:
    @pytest.mark.parametrize("after", [habits.as_dict, habits.as_object, habits.as_outputs, lambda x: (x, 2 * x)])
    def test_auxiliary_logits_are_left_out(self, after: Any) -> None:
        (note,) = tried(Changed(after=after, in_training=True), True, TWO).notes
        assert "leaves auxiliary outputs out of the loss" in note

    @pytest.mark.parametrize("after", [lambda x: x[:, :1], lambda x: torch.cat([x, x], 1), lambda x: x[0]])
    def test_other_logits_in_train_mode(self, after: Any) -> None:
        with pytest.raises(InputError, match="cannot be trained: a step on 2 images raises"):
            tried(Changed(after=after, in_training=True), True, TWO)

    @pytest.mark.parametrize("net", [habits.Tied, habits.TiedLayers, habits.TiedBuffer])
    def test_tied_weights(self, net: Any) -> None:
        trial = tried(net(), True, TWO)
        assert trial.notes == [] and not trial.unused_parameters

    @pytest.mark.parametrize("net", [habits.Unused, lambda: Changed(after=habits.as_outputs, in_training=True)])
    def test_parameters_that_no_step_uses(self, net: Any) -> None:
        used = tried(net(), True, TWO).unused_parameters
        assert used == isinstance(net(), habits.Unused)

    @pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
    def test_weight_norm(self, norm: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the older one is deprecated, and still met
            net = habits.linear(norm)
        assert tried(net, True, TWO, Training("adamw", "update", 2)).notes == []

    def test_one_image_per_worker_is_too_few_for_some_batchnorm(self) -> None:
        assert tried(habits.SmallBatch(), True, TWO).notes == []
        with pytest.raises(
            InputError, match=r"cannot be trained: a step on 1 image, all that one worker takes.*Expected more than 1"
        ):
            tried(habits.SmallBatch(), True, ONE)
        assert tried(habits.SmallBatch(), True, Training("sgd", "frozen", 1)).notes == []

    def test_state_outside_the_state_dict(self) -> None:
        (note,) = tried(habits.Counting(), True, TWO).notes
        assert "resumed comes to other weights" in note

    def test_what_cannot_be_copied(self) -> None:
        with pytest.raises(
            InputError, match="cannot be trained: copying it raises TypeError: cannot pickle 'generator'"
        ):
            tried(habits.WithLock(), True, TWO)
        (note,) = tried(habits.WithLock()).notes
        assert "not folded into convolutions, which costs speed: cannot pickle 'generator'" in note

    def test_no_parameters(self) -> None:
        with pytest.raises(InputError, match="it has no parameters"):
            try_model(classifier_of(nn.Flatten()), "m", (3, 2, 2), 12, trainings=[TWO])

    def test_parameters_that_are_whole_numbers(self) -> None:
        net = Plain()
        net.steps = nn.Parameter(torch.tensor(3), requires_grad=False)
        with pytest.raises(InputError, match=r"cannot be trained: copying it raises RuntimeError: .*floating"):
            tried(net, True, TWO)

    def test_a_loss_that_is_not_finite_is_left_to_the_alignment(self) -> None:
        assert tried(Changed(after=lambda x: 1e38 * x), False, TWO).notes == []


@pytest.mark.parametrize(("images", "workers", "rows"), [(100, 1, 8), (100, 4, 2), (5, 1, 5), (5, 4, 1), (3, 4, 1)])
def test_how_many_images_a_worker_takes(images: int, workers: int, rows: int) -> None:
    align = AlignConfig(batch_size=8, workers=workers, optimizer=OptimizerConfig(name="adamw"), batchnorm="frozen")
    assert training_of(align, images) == Training("adamw", "frozen", rows)


def raise_(problem: BaseException) -> Any:
    raise problem


class Doubled(nn.Module):
    """Changes what its last layer returns, so that no layer returns its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Plain()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = 2 * self.net(images)
        return logits


class Rounding(nn.Module):
    """Sees its input through a function whose gradient cannot be differentiated again."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Plain()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(Once.apply(images))  # type: ignore[no-untyped-call]
        return logits


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor) -> torch.Tensor:
        return images.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clone()


class TestRefinements:
    """What a loss or a part needs of a model is tried before any work."""

    def test_features_that_cannot_be_found(self) -> None:
        try_model(classifier_of(Plain()), "m", SHAPE, CLASSES, sees=["features"])
        with pytest.raises(InputError, match=r"models\.m: its features cannot be found, because no linear layer"):
            try_model(classifier_of(Doubled()), "m", SHAPE, CLASSES, sees=["features"])

    def test_places_that_cannot_be_predicted_at(self) -> None:
        flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))
        with pytest.raises(InputError, match=r"models\.m: it cannot predict at places of the image"):
            try_model(classifier_of(flat), "m", SHAPE, CLASSES, sees=["features", "places"])

    def test_parameters_that_are_not_there_to_be_frozen(self) -> None:
        tried(Plain(), True, Training("sgd", "update", 2, freeze=("*.weight",)))
        with pytest.raises(InputError, match=r"models\.m: align\.freeze: no parameter is called 'layer9.\*'"):
            tried(Plain(), True, Training("sgd", "update", 2, freeze=("layer9.*",)))
        with pytest.raises(InputError, match=r"^models\.m: train\.freeze: no parameter is called 'layer9"):
            tried(Plain(), True, Training("adamw", "update", 2, freeze=("layer9.*",), key="train"))

    def test_second_derivatives_that_there_are_none_of(self) -> None:
        tried(Plain(), True, Training("sgd", "update", 2, terms=("score_matching",)))
        with pytest.raises(InputError, match=r"models\.m: it cannot be trained: a step on 2 images raises RuntimeErr"):
            tried(Rounding(), True, Training("sgd", "update", 2, terms=("score_matching",)))
