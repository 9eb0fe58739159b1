"""Every refinement, loss and part trains, lowers what it is meant to lower, and resumes from a file bit for bit."""

import math

import pytest
import safetensors.torch
import torch
from made import CASES, batch, begun, config_of, kept_by, network, pooled
from small_nets import assert_identical, tensors_of
from torch.nn import functional as F

from align_core.align_config import AlignConfig
from align_core.losses import LOSSES
from align_core.refinements import REFINEMENTS
from align_core.weights import to_bytes

FALLING = {
    "alignment": ["alignment_loss"],
    "label_only": ["label_loss"],
    "label_smoothing": ["label_loss"],
    "saa": ["alignment_loss", "self_adversarial"],
    "lgv": ["label_loss"],
    "swa": ["label_loss"],
    "sam": ["label_loss"],
    "dra": ["score_matching"],
    "input_gradient": ["input_gradient"],
    "slight_at": ["label_loss"],
    **{f"loss {name}": ["alignment_loss"] for name in LOSSES},
    **{name: ["alignment_loss"] for name in CASES if name.startswith("loss kl and")},
    "inputs random": ["alignment_loss"],
    "inputs pgd": ["alignment_loss"],
    "over witnesses max": ["alignment_loss"],
    "over witnesses weighed": ["alignment_loss"],
    "layer decay": ["alignment_loss"],
}
"""What surely falls: not the distance from the source itself, about 0 at the start, nor the loss beside a penalty."""

EPOCH, TOTAL, STOP = 5, 12, 7
KEPT = {"lgv": 9, "mba": 10}  # 4 of 5 steps of an epoch, so that 9 of 12; and as many as are drawn


@pytest.mark.parametrize("name", CASES)
def test_trains(name: str) -> None:
    # The input gradient is short until a network has learnt something.
    config, source = config_of(name), network(0, steps=60 if name == "input_gradient" else 8)
    before = tensors_of(source)
    alignment = begun(config, source, total_steps=32, steps_per_epoch=16)
    reports = [alignment.step(*batch(step)) for step in range(32)]
    assert all(math.isfinite(value) for report in reports for value in report.values())
    for value in FALLING.get(name, []):
        first, last = (sum(own[value] for own in part) / 8 for part in (reports[:8], reports[-8:]))
        assert last < first, value
    for own, value in source.named_parameters():
        is_frozen = name == "freeze" and own.startswith(("0.", "1."))
        assert torch.equal(value, before[own]) == is_frozen, own
    fresh = pooled(9).eval()
    for kept in kept_by(alignment):
        fresh.load_state_dict(kept)
        logits = fresh(batch(0)[0])
        assert logits.isfinite().all()
        assert F.cross_entropy(logits, batch(0)[1]) < 3  # it still knows digits: knowing nothing costs 2.3


@pytest.mark.parametrize("name", CASES)
def test_resumes_bit_for_bit(name: str) -> None:
    config = config_of(name)
    unbroken = begun(config, network(0, steps=8), TOTAL, EPOCH)
    reports = [unbroken.step(*batch(step)) for step in range(TOTAL)]

    broken = begun(config, network(0, steps=8), TOTAL, EPOCH)
    first = [broken.step(*batch(step)) for step in range(STOP)]
    file = to_bytes(broken.state())

    # Where the source is its own teacher, that is the source as it was: the caller gives it again.
    source = network(0, steps=8) if config.teacher == "source" else pooled(9)
    resumed = begun(config, source, TOTAL, EPOCH)
    resumed.restore(safetensors.torch.load(file))
    torch.manual_seed(1234)
    assert first + [resumed.step(*batch(step)) for step in range(STOP, TOTAL)] == reports
    assert_identical(resumed.state(), unbroken.state())
    torch.manual_seed(4321)
    kept, expected = kept_by(resumed), kept_by(unbroken)
    assert len(kept) == len(expected) == KEPT.get(name, 1)
    for own, wanted in zip(kept, expected, strict=True):
        assert_identical(own, wanted)


@pytest.mark.parametrize("name", ["lgv", "swa", "mba", "keep ema", "sasd"])
def test_what_is_kept_is_not_what_is_trained_on(name: str) -> None:
    """Asking for it changes no later step, and later steps do not change it."""
    ends = []
    for asks in (False, True):
        alignment = begun(config_of(name), network(0), TOTAL, EPOCH)
        for step in range(STOP):
            alignment.step(*batch(step))
        networks = alignment.networks(lambda: (batch(step)[0] for step in range(3))) if asks else []
        copies = [{key: value.clone() for key, value in own.items()} for own in networks]
        for step in range(STOP, TOTAL):
            alignment.step(*batch(step))
        if name in ("lgv", "mba", "swa"):
            for own, copied in zip(networks, copies, strict=True):
                assert_identical(own, copied)
        ends.append({key: value.clone() for key, value in alignment.state().items()})
    assert_identical(*ends)


def test_a_step_of_saa_written_out() -> None:
    """kl + 0.2 local on clean images, and 0.02 (kl + 0.02 local) on adversarial ones, without dropout."""
    config = config_of("saa")
    source = network(0)
    source[4].p = 0.0
    alignment = begun(config, source, TOTAL, EPOCH)
    met: list[tuple[torch.Tensor, dict[str, float]]] = []
    compared = alignment._compared

    def noting(images_BCHW: torch.Tensor, labels_B: torch.Tensor):  # type: ignore[no-untyped-def]
        logits_BK, losses = compared(images_BCHW, labels_B)
        met.append((images_BCHW, {name: value.item() for name, value in losses.items()}))
        return logits_BK, losses

    alignment._compared = noting  # type: ignore[method-assign]
    report = alignment.step(*batch(0))
    (adversarial, there), (clean, here) = met
    assert torch.equal(clean, batch(0)[0]) and 0 < (adversarial - clean).abs().max() <= 4 / 255 + 1e-6
    assert report["alignment_loss"] == pytest.approx(here["kl"] + 0.2 * here["local"], rel=1e-5)
    assert report["loss"] == pytest.approx(report["alignment_loss"] + 0.02 * report["self_adversarial"], rel=1e-5)
    assert report["self_adversarial"] == pytest.approx(there["kl"] + 0.02 * there["local"], rel=1e-5)


class TestPresets:
    @pytest.mark.parametrize("name", REFINEMENTS)
    def test_differ_from_the_defaults_in_what_they_say(self, name: str) -> None:
        own = REFINEMENTS[name]
        assert set(own.settings) <= set(AlignConfig.__dataclass_fields__)
        assert own.what and own.paper and 2000 < own.year < 2100
        config = config_of(name)
        assert config.needs_witnesses == (name in ("alignment", "saa"))

    @pytest.mark.parametrize(
        ("name", "settings"),
        [
            ("lgv", {"momentum": 0.9, "weight_decay": 1e-4}),
            ("swa", {"momentum": 0.9, "weight_decay": 1e-4}),
            ("mba", {"momentum": 0.9, "weight_decay": 5e-4}),
            ("sasd", {"momentum": 0.0, "weight_decay": 0.0}),
        ],
    )
    def test_published_rates(self, name: str, settings: dict[str, float]) -> None:
        settings |= {"lr": 0.05, "schedule": "constant", "warmup": 0.0, "nesterov": False}
        optimizer = config_of(name).optimizer
        assert {key: getattr(optimizer, key) for key in settings} == settings

    def test_published_parts(self) -> None:
        assert config_of("lgv").keep == {"name": "collect", "per_epoch": 4}
        assert config_of("mba").update == {"name": "gradient_norm", "weight": 1.0, "gamma": 0.1}
        assert config_of("mba").keep == {"name": "swag", "per_epoch": 30, "samples": 10, "scale": 1.5}
        assert config_of("sasd").keep == {"name": "scaled", "factor": 0.93}
        assert config_of("sasd").update == {"name": "sam", "rho": 0.05}
        assert config_of("sasd").temperature == config_of("dsm").temperature == 1
        assert config_of("dsm").mix == {"name": "cutmix", "alpha": 1.0}
        (term,) = config_of("saa").terms
        assert (term["name"], term["weight"], term["local"]) == ("self_adversarial", 0.02, 0.02)
        assert [(own["name"], own["weight"]) for own in config_of("saa").losses] == [("kl", 1.0), ("local", 0.2)]
        assert config_of("label_smoothing").label_smoothing == 0.1
