"""The figures that a sweep chooses by, compared with a plain computation of rates, gains and accuracies."""

import dataclasses

import numpy as np
import pytest
import torch
from digits_experiment import experiment, write_experiment
from sweeping import trial

import pipelines.sweep.validation as validation_module
from align_core.attacks import craft
from align_core.images import Fit, ImageSetConfig, open_image_set, read_images
from pipelines.compute.others import pool_of
from pipelines.failure import InputChangedError
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.payload import network_loader
from pipelines.sweep.choice import chosen
from pipelines.sweep.validation import ValidationSetup, Validator

SOURCE, TARGETS = "cnn_a", ("cnn_d", "wide")
IMAGES = {"kind": "digits", "take": [900, 1200]}


@pytest.fixture(scope="module")
def blueprint(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation")
    data = {
        "classes": 10, "image_size": 16, "train": {"kind": "digits", "take": [600, 856]},
        "validation": IMAGES, "test": {"kind": "digits", "take": [1200, 1260]},
    }  # fmt: skip
    roles = {"validation_targets": [*TARGETS, "drawn"], "witnesses": ["cnn_b"], "variants": {}}
    roles["models"] = experiment(weights)["models"] | {
        "drawn": {"wrap": "resize_pad", "smallest": 0.5, "model": "wide"}
    }
    file = write_experiment(folder, weights, data=data, **roles)
    return open_blueprint(Request(file, quiet=True))


@pytest.fixture(scope="module")
def validation(blueprint):
    manifest = blueprint.inspected.manifests["validation"]
    return ValidationSetup(
        images=blueprint.experiment.data.validation, fit=Fit(16), image_ids=manifest.ids,
        labels=manifest.labels.tolist(), contents=manifest.contents,
        source=SOURCE, targets=TARGETS, attack=blueprint.experiment.attacks["pgd"], seed=3, pass_rows=None,
        chunk=64, pool=pool_of("data.validation", manifest, blueprint.experiment.data.validation, Fit(16), seed=3),
    )  # fmt: skip


def validator_of(blueprint, validation):
    return Validator(validation, network_loader(blueprint), "cpu", threads=1)


@pytest.fixture(scope="module")
def validator(blueprint, validation):
    return validator_of(blueprint, validation)


@pytest.fixture(scope="module")
def baseline(validator):
    return validator.baseline()


class Plain:
    """Computes the same figures with `align_core` and NumPy alone, on one batch of all images."""

    def __init__(self, blueprint, validation):
        self.loader, self.validation = network_loader(blueprint), validation
        images = open_image_set(ImageSetConfig(kind="digits"), 16)
        self.images_BCHW = torch.from_numpy(read_images(images, validation.image_ids))
        self.labels = np.array(validation.labels)

    def network(self, name):
        return self.loader.load(name, "cpu")

    def wrong(self, name, images_BCHW):
        with torch.no_grad():
            return self.network(name)(images_BCHW / 255).argmax(1).numpy() != self.labels

    def crafted(self, surrogate):
        ids, attack, seed = self.validation.image_ids, self.validation.attack, self.validation.seed
        return craft(self.network(surrogate), self.images_BCHW, torch.from_numpy(self.labels), ids, attack, seed)

    def rates(self, surrogate, positions):
        """Returns whether each target is wrong on the images that count: crafted on the surrogate and on the source."""
        mine, sources = self.crafted(surrogate), self.crafted(SOURCE)
        known = ~self.wrong(SOURCE, self.images_BCHW)
        chosen = np.isin(np.arange(len(self.labels)), list(positions))
        found = {}
        for target in self.validation.targets:
            counts = known & ~self.wrong(target, self.images_BCHW) & chosen
            found[target] = (self.wrong(target, mine)[counts], self.wrong(target, sources)[counts])
        return found

    def clean_accuracy(self, name, positions):
        return 100 * (1 - self.wrong(name, self.images_BCHW)[list(positions)].mean())


@pytest.fixture(scope="module")
def plain(blueprint, validation):
    return Plain(blueprint, validation)


@pytest.mark.parametrize("surrogate", ["cnn_b", "cnn_c"])
@pytest.mark.parametrize("on", ["all", "interim"])
def test_a_measurement_is_what_a_plain_computation_finds(validator, baseline, validation, plain, surrogate, on):
    positions = range(300) if on == "all" else validation.interim_positions
    measured = validator.measure(validator.networks.network(surrogate), baseline, positions)
    rates = plain.rates(surrogate, positions)
    assert measured.n == len(positions) == (300 if on == "all" else 150)
    assert measured.rates == pytest.approx({target: 100 * mine.mean() for target, (mine, _) in rates.items()})
    gains = [100 * (mine.mean() - sources.mean()) for mine, sources in rates.values()]
    assert abs(np.mean(gains)) > 1  # else a wrong computation could pass
    assert measured.gain == pytest.approx(np.mean(gains))
    accuracy, of_source = (plain.clean_accuracy(name, positions) for name in (surrogate, SOURCE))
    assert measured.clean_accuracy == pytest.approx(accuracy)
    assert measured.clean_change == pytest.approx(accuracy - of_source)


def test_the_interval_of_the_gain_is_that_of_images_drawn_again(validator, baseline, plain):
    measured = validator.measure(validator.networks.network("cnn_b"), baseline, range(300))
    mine, sources = plain.crafted("cnn_b"), plain.crafted(SOURCE)
    known = ~plain.wrong(SOURCE, plain.images_BCHW)
    counts = {target: known & ~plain.wrong(target, plain.images_BCHW) for target in TARGETS}
    change = {t: plain.wrong(t, mine).astype(int) - plain.wrong(t, sources) for t in TARGETS}
    gains = []
    for rows in np.random.default_rng(0).integers(0, 300, (10_000, 300)):  # one draw of images for all targets
        gains.append(np.mean([100 * change[t][rows][counts[t][rows]].mean() for t in TARGETS]))
    assert [measured.gain_low, measured.gain_high] == pytest.approx(
        np.quantile(gains, [0.025, 0.975]).tolist(), abs=0.5
    )  # the interval is 16 points wide


def test_resamples_are_drawn_once_for_all_measurements(validator, baseline, validation, monkeypatch):
    """Interim and final measurements are on two sets of images; whatever was drawn for each serves every trial."""
    network = validator.networks.network("cnn_b")
    first = [validator.measure(network, baseline, on) for on in (range(300), validation.interim_positions)]

    def draw(*arguments):
        raise AssertionError("the resamples are drawn again")

    monkeypatch.setattr(validation_module, "resampled_counts", draw)
    assert [validator.measure(network, baseline, on) for on in (range(300), validation.interim_positions)] == first


@pytest.mark.parametrize("on", ["all", "interim"])
def test_the_source_itself_gains_nothing(validator, baseline, validation, on):
    positions = range(300) if on == "all" else validation.interim_positions
    measured = validator.measure(validator.networks.network(SOURCE), baseline, positions)
    assert (measured.gain, measured.clean_change) == (0, 0)
    assert measured.gain_low == pytest.approx(-measured.gain_high) and measured.gain_high > 0  # other images may differ


@pytest.mark.parametrize("chunk", [1, 100, 1_000])
def test_how_images_are_chunked_changes_nothing(blueprint, validation, validator, baseline, chunk):
    """On networks this small, not even the rounding changes."""
    other = validator_of(blueprint, dataclasses.replace(validation, chunk=chunk))
    positions = range(0, 300, 7)
    expected = validator.measure(validator.networks.network("cnn_b"), baseline, positions)
    assert other.measure(other.networks.network("cnn_b"), baseline, positions) == expected


def test_a_surrogate_is_left_as_it_was(validator, baseline):
    network = validator.networks.network("cnn_b")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    validator.measure(network, baseline, range(10))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 300, 511, 512, 513, 1_000, 5_000, 50_000])
def test_interim_images_are_enough_not_too_many_and_spread_over_the_set(validation, count):
    setup = dataclasses.replace(validation, image_ids=[str(n) for n in range(count)], labels=[0] * count)
    interim = setup.interim_positions
    assert min(count, 128) <= len(interim) <= 256
    assert len(set(interim)) == len(interim)
    gaps = np.diff([-1, *interim, count])
    assert gaps.max() <= -(-count // 128)
    assert interim[0] == 0


def images_at(validation, positions):
    """The same on some of the images."""
    chosen = {name: [getattr(validation, name)[p] for p in positions] for name in ("image_ids", "labels", "contents")}
    return dataclasses.replace(validation, **chosen)


def relabelled(validation, blueprint, positions, right):
    """Labels images so that the network that `right` names is right on the first so many of them only."""
    plain = Plain(blueprint, images_at(validation, positions))
    ((name, count),) = right.items()
    with torch.no_grad():
        predicted = plain.network(name)(plain.images_BCHW / 255).argmax(1).numpy()
    labels = np.where(np.arange(len(predicted)) < count, predicted, (predicted + 1) % 10).tolist()
    return dataclasses.replace(plain.validation, labels=labels)


def test_the_message_says_so_where_no_image_counts(blueprint, validation):
    validator = validator_of(blueprint, relabelled(validation, blueprint, range(40), {SOURCE: 0}))
    with pytest.raises(ValueError, match="no image is classified correctly by both the source and a validation target"):
        validator.measure(validator.networks.network("cnn_b"), validator.baseline(), range(40))


def test_a_target_that_no_image_counts_for_is_left_out(blueprint, validation, plain):
    known = ~plain.wrong(SOURCE, plain.images_BCHW) & ~plain.wrong("wide", plain.images_BCHW)
    (positions,) = np.nonzero(known & plain.wrong("cnn_d", plain.images_BCHW))
    assert len(positions) >= 5
    some = images_at(validation, positions)
    both, one = (validator_of(blueprint, v) for v in (some, dataclasses.replace(some, targets=("wide",))))
    measured = [v.measure(v.networks.network("cnn_b"), v.baseline(), range(len(positions))) for v in (both, one)]
    assert list(measured[0].rates) == ["wide"]
    assert measured[0] == measured[1]


def test_an_alignment_that_costs_just_what_it_may_can_be_chosen(blueprint, validation, validator, baseline):
    """One image of a hundred is exactly one point, without a rounding error."""
    some = validator_of(blueprint, relabelled(validation, blueprint, range(100), {"cnn_b": 54}))
    right = np.arange(100) < 55
    of_source = dataclasses.replace(
        baseline,
        source=dataclasses.replace(baseline.source, right=right),
        target_right={target: np.ones(100, dtype=bool) for target in TARGETS},
    )
    measured = some.measure(some.networks.network("cnn_b"), of_source, range(100))
    assert (measured.clean_accuracy, measured.clean_change) == (54.0, -1.0)
    assert (
        chosen({"a": trial(measured.gain, measured.clean_accuracy, measured.clean_change)}, max_clean_drop=1.0) == "a"
    )


def test_images_that_were_exchanged_since_they_were_inspected_are_refused(blueprint, validation):
    contents = [*validation.contents[:7], "0" * 32, *validation.contents[8:]]
    with pytest.raises(InputChangedError, match=r"data\.validation: image 00907 is not as it was when the image set"):
        validator_of(blueprint, dataclasses.replace(validation, contents=contents))


def test_images_that_were_inspected_by_their_bytes(blueprint, validation, baseline):
    config = dataclasses.replace(validation.images, inspect="bytes")
    contents = blueprint.inspected.manifests["validation"].originals
    by_bytes = dataclasses.replace(validation, images=config, contents=contents)
    assert (validator_of(blueprint, by_bytes).baseline().source.right == baseline.source.right).all()
    with pytest.raises(InputChangedError, match=r"data\.validation: image 00900 is not as it was when the image set"):
        validator_of(blueprint, dataclasses.replace(by_bytes, contents=validation.contents))


def test_a_target_whose_defence_draws_is_shown_the_ids(blueprint, validation, plain):
    right = validator_of(blueprint, dataclasses.replace(validation, targets=("drawn",))).baseline().target_right
    with torch.no_grad():
        logits = plain.network("drawn")(plain.images_BCHW / 255, validation.image_ids)
    assert right["drawn"].tolist() == (logits.argmax(1).numpy() == plain.labels).tolist()
    assert right["drawn"].sum() < (~plain.wrong("wide", plain.images_BCHW)).sum()  # it was defended
