"""Settings of an alignment and of its optimiser: which are refused, how parts are read, and which decide the result."""

from typing import Any

import pytest

from align_core.align_config import AlignConfig, AugmentConfig, OptimizerConfig
from align_core.errors import InputError


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"loss": "kldiv"}, "there is no alignment loss 'kldiv'; choose from kl"),
        ({"temperature": 0.0}, "temperature"),
        ({"weight": 0.0, "label_weight": 0.0}, "not both 0"),
        ({"weight": -1.0, "label_weight": 2.0}, "0 or more"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"checkpoint_steps": 0}, "at least 1"),
        ({"batch_size": 9, "workers": 2}, "multiple of workers"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm"),
        ({"limit_steps": 0}, "limit_steps must be from 1 to 1,000,000,000, not 0"),
        ({"workers": 10_001, "batch_size": 10_001}, "workers must be at most 10,000, and is 10,001"),
        ({"label_smoothing": 1.0, "label_weight": 1.0}, "label_smoothing must be 0 or more and below 1, not 1"),
        ({"label_smoothing": -0.1, "label_weight": 1.0}, "label_smoothing must be 0 or more and below 1, not -0.1"),
        ({"label_smoothing": 0.1}, "label_smoothing has no effect, because label_weight is 0"),
        ({"teacher": "witness"}, "teacher must be one of witnesses, source, not the text 'witness'"),
        (
            {"over_witnesses": "median"},
            "over_witnesses must be one of mean, max, min, or a list of weights, not 'median'",
        ),
        ({"over_witnesses": []}, "over_witnesses: weights must be finite numbers of 0 or more, and not all 0"),
        ({"over_witnesses": [0, 0.0]}, "not all 0"),
        ({"over_witnesses": [1, -1]}, "numbers of 0 or more"),
        ({"over_witnesses": [1, "2"]}, "must be finite numbers"),
        ({"over_witnesses": [1, True]}, "must be finite numbers"),
        ({"over_witnesses": [1, float("inf")]}, "must be finite numbers"),
        ({"over_witnesses": [1, float("nan")]}, "must be finite numbers"),
        (
            {"over_witnesses": "max", "loss": "rkd"},
            "max chooses image by image, and rkd has one value for a batch; take the",
        ),
        ({"over_witnesses": "min", "loss": ["kl", "ega"]}, "min chooses image by image, and ega has one value"),
        (
            {"loss": ["kl", "nce"], "mix": "cutmix"},
            "mix: nce compares images by their labels, of which a mixed image has",
        ),
        (
            {"weight": 0.0, "label_weight": 1.0, "terms": ["self_adversarial"]},
            "terms: self_adversarial aligns the source to its teacher, and weight is 0; leave it out",
        ),
        ({"loss": ["kl", {"name": "pkt", "weigth": 2}]}, "loss pkt has no setting 'weigth'; did you mean 'weight'"),
        ({"update": "sma"}, "update: there is no part 'sma'; did you mean 'sam'. There are: plain, sam"),
        ({"inputs": "pgd2"}, "inputs: there is no part 'pgd2'; did you mean 'pgd'. There are: clean, random, pgd"),
        ({"mix": "cutmx"}, "mix: there is no part 'cutmx'; did you mean 'cutmix'. There are: none, cutmix"),
        (
            {"keep": "lats"},
            "keep: there is no part 'lats'; did you mean 'last'. There are: last, ema, swa, collect, swag, scaled",
        ),
        (
            {"terms": ["score"]},
            "terms: there is no part 'score'; choose from input_gradient, score_matching, self_adversarial",
        ),
        ({"terms": ["input_gradient", {"name": "input_gradient"}]}, "terms: each may be named once"),
        ({"update": {"name": "sam", "roh": 1}}, "update sam has no setting 'roh'; did you mean 'rho'"),
        ({"update": {"name": "sam", "rho": 0}}, "rho of update sam must be from 1e-06 to 1000, not 0"),
        (
            {"update": {"rho": 0.1}},
            "update: the part must be a name, or keys and values with a name, not keys and values without one",
        ),
        ({"keep": {"name": "collect", "per_epoch": 0.5}}, "per_epoch of keep collect must be a whole number"),
        ({"keep": {"name": "ema", "decay": 1}}, "decay of keep ema must be from 0 to 0.999999, not 1"),
        ({"inputs": {"name": "pgd", "eps": "4:255"}}, "'4:255' is not a pixel fraction such as 4/255"),
        ({"inputs": {"name": "pgd", "eps": 2}}, "eps of inputs pgd must be from 0 to 1, not 2"),
        ({"terms": "self_adversarial"}, "terms must be of type list, not the text"),
        ({"freeze": "layer1.*"}, "freeze must be of type list, not the text"),
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
        ({"warmup": -0.5}, "warmup must be 0 epochs or more, not -0.5"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and not above 1, not 0"),
        ({"layer_decay": 1.1}, "layer_decay must be above 0 and not above 1, not 1.1"),
        ({"schedule": "linear"}, "schedule must be one of cosine, constant, not the text 'linear'"),
    ],
)
def test_optimiser_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        OptimizerConfig(**settings)


class TestParts:
    def test_are_completed_and_stay_words_where_there_are_none(self) -> None:
        config = AlignConfig(update="sam", keep={"name": "swa", "start": 0.5}, terms=["self_adversarial"])
        assert config.update == {"name": "sam", "rho": 0.05}
        assert config.keep == {"name": "swa", "per_epoch": 4, "start": 0.5}
        eps = {"eps": 4 / 255, "step": 1 / 255, "steps": 10}
        assert config.terms == [{"name": "self_adversarial", "weight": 0.02, "local": 0.02, **eps}]
        assert (config.inputs, config.mix) == ("clean", "none")
        assert AlignConfig(inputs={"name": "clean"}) == AlignConfig()

    def test_lengths_may_be_written_as_fractions(self) -> None:
        config = AlignConfig(inputs={"name": "pgd", "eps": "8/255", "step": "2/255"})
        assert config.inputs == {"name": "pgd", "eps": 8 / 255, "step": 2 / 255, "steps": 10}

    def test_a_loss_alone_stays_a_word_and_any_other_is_a_list(self) -> None:
        assert AlignConfig(loss={"name": "rkd", "weight": 1}).loss == "rkd"
        assert AlignConfig(loss=["mse"]).loss == "mse"
        assert AlignConfig(loss={"name": "mse", "weight": 2}).loss == [{"name": "mse", "weight": 2.0}]
        assert [own["name"] for own in AlignConfig(loss=["kl", "hint"]).losses] == ["kl", "hint"]
        assert AlignConfig(loss="rkd").losses == [{"name": "rkd", "weight": 1.0, "distance": 1.0, "angle": 2.0}]

    def test_what_has_been_read_is_read_again_alike(self) -> None:
        config = AlignConfig(loss=["kl", "nce"], update="sam", keep="swag", terms=["input_gradient"], inputs="pgd_l2")
        settings = {name: getattr(config, name) for name in AlignConfig.__dataclass_fields__}
        assert AlignConfig(**settings) == config


class TestDeciding:
    def test_nothing_at_the_defaults(self) -> None:
        assert AlignConfig().deciding == {}
        assert AlignConfig(loss={"name": "kl"}, keep="last", checkpoint_steps=7).deciding == {}

    @pytest.mark.parametrize(
        ("settings", "deciding"),
        [
            ({"temperature": 2.0}, {"temperature": 2.0}),
            ({"optimizer": OptimizerConfig(lr=0.1, warmup=0.5)}, {"optimizer": {"lr": 0.1, "warmup": 0.5}}),
            ({"update": "sam"}, {"update": {"name": "sam", "rho": 0.05}}),
            ({"loss": "mse"}, {"loss": "mse"}),
            ({"loss": {"name": "kl", "weight": 2}}, {"loss": [{"name": "kl", "weight": 2.0}]}),
            ({"augment": AugmentConfig(flip=False)}, {"augment": {"flip": False}}),
            ({"freeze": ["a.*"], "teacher": "source"}, {"freeze": ["a.*"], "teacher": "source"}),
            ({"limit_steps": 9, "epochs": 7}, {"limit_steps": 9}),  # epochs have no effect then
            ({"epochs": 7}, {"epochs": 7}),
            (
                {"weight": 0.0, "label_weight": 1.0, "temperature": 2.0, "loss": "rkd", "teacher": "source"},
                {"weight": 0.0, "label_weight": 1.0},
            ),
            ({"weight": 0.0, "label_weight": 1.0, "over_witnesses": [1, 2]}, {"weight": 0.0, "label_weight": 1.0}),
        ],
    )
    def test_holds_what_differs_and_has_an_effect(self, settings: dict[str, Any], deciding: dict[str, Any]) -> None:
        assert AlignConfig(**settings).deciding == deciding

    def test_steps_are_those_of_whole_epochs_or_as_many_as_are_given(self) -> None:
        assert AlignConfig(epochs=2, batch_size=10).steps(35) == 6
        assert AlignConfig(epochs=2, batch_size=10, limit_steps=100).steps(35) == 100
        assert AlignConfig(epochs=2, batch_size=100, workers=2).steps(35) == 2
        with pytest.raises(InputError, match="1 training images are too few for 2 workers"):
            AlignConfig(workers=2).steps(1)


class TestWarmup:
    def test_is_shorter_than_the_training(self) -> None:
        AlignConfig(epochs=2, optimizer=OptimizerConfig(warmup=1.9))
        with pytest.raises(ValueError, match=r"optimizer\.warmup: 2 epochs of warm-up, of 2 in all, leave"):
            AlignConfig(epochs=2, optimizer=OptimizerConfig(warmup=2.0))

    def test_is_shorter_than_a_number_of_steps(self) -> None:
        # An epoch of 35 images is three steps of 10.
        AlignConfig(limit_steps=4, batch_size=10, optimizer=OptimizerConfig(warmup=1.0)).check_images(35)
        short = AlignConfig(limit_steps=3, batch_size=10, optimizer=OptimizerConfig(warmup=1.0))
        with pytest.raises(InputError, match=r"optimizer\.warmup: 1 epoch of warm-up, of 1 in all"):
            short.check_images(35)


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        ({}, True),
        ({"label_weight": 1.0}, True),
        ({"teacher": "source"}, False),
        ({"weight": 0.0, "label_weight": 1.0}, False),
    ],
)
def test_whether_a_witness_is_needed(settings: dict[str, Any], needs: bool) -> None:
    assert AlignConfig(**settings).needs_witnesses == needs
