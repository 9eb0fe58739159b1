"""Surrogates of several networks: what a refinement leaves, ensembles, and what their attacks see and cost."""

import json
from pathlib import Path

import pytest
from hand_made import HandMade, hand_made

from align_core.errors import InputError
from align_core.model_config import ModelConfig, resolve_aligned
from align_core.models import Ensemble
from pipelines.compute.loading import LoadedNetworks
from pipelines.report.page import computed_report
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.payload import network_loader

# Four training images are one step an epoch, so that weights are gathered three times.
LGV = {"refine": "lgv", "align": {"epochs": 3}}
VARIANTS = {
    "lgv": LGV,
    "mba": {"refine": "mba", "align": {"keep": {"samples": 2}}},
    "pair": {"ensemble": ["aligned", "lgv"], "combine": "loss"},
    "of_pair": {"ensemble": ["pair", "other"]},
}


@pytest.fixture
def experiment(tmp_path: Path) -> HandMade:
    return hand_made(tmp_path, variants=VARIANTS, contrasts=[["lgv", "pair"], ["source", "lgv"]])


@pytest.fixture
def blueprint(experiment: HandMade) -> Blueprint:
    return experiment.finish()


def test_the_networks_of_each(blueprint: Blueprint) -> None:
    members = {name: (own.members, own.combine) for name, own in blueprint.by_name.items() if name in VARIANTS}
    lgv = ("lgv", "lgv#1", "lgv#2")
    assert members == {
        "lgv": (lgv, "cycle"),
        "mba": (("mba", "mba#1"), "cycle"),
        "pair": (("aligned", *lgv), "loss"),
        "of_pair": (("aligned", *lgv, "other"), "logits"),
    }
    digests = {name: blueprint.networks[name].digest for name in lgv}
    assert len(set(digests.values())) == 3 and all(digests.values())
    assert blueprint.missing("align") == []


def test_what_attacks_see_is_loaded_and_counts(blueprint: Blueprint) -> None:
    networks = LoadedNetworks(network_loader(blueprint), "cpu")
    for name, combine, at_once in (("lgv", "cycle", 1), ("pair", "loss", 4), ("of_pair", "logits", 5)):
        own = blueprint.by_name[name]
        network = networks.mean_of(own.members, own.combine)
        assert isinstance(network, Ensemble) and network.combine == combine
        rows = [row for row in computed_report(blueprint).transfer if row["surrogate"] == name]
        assert {row["gradients"] for row in rows} == {4 * at_once}


def test_how_networks_are_combined_decides_the_images(experiment: HandMade) -> None:
    before = experiment.finish()
    pair, lgv = before.by_name["pair"], before.by_name["lgv"]
    experiment.write(
        variants=VARIANTS | {"pair": VARIANTS["pair"] | {"combine": "cycle"}, "lgv": LGV | {"combine": "logits"}}
    )
    after = experiment.blueprint()
    for own in (pair, lgv):
        now = after.by_name[own.name]
        assert after.adversarial(now, "mi").fingerprint != before.adversarial(own, "mi").fingerprint
        assert after.clean()[own.name].table.fingerprint == before.clean()[own.name].table.fingerprint


def test_a_network_that_is_damaged_or_gone_makes_the_surrogate_missing(experiment: HandMade) -> None:
    blueprint = experiment.finish()
    file = Path(blueprint.store.path("models/lgv/model-2.safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = experiment.blueprint()
    again.hash_weights()
    assert again.missing("align") == ["lgv"]
    file.unlink()
    again = experiment.blueprint()
    again.hash_weights()
    assert again.missing("align") == ["lgv"]


def test_the_card_says_what_it_took(blueprint: Blueprint) -> None:
    card = json.loads(blueprint.store.read("models/lgv/card.json"))
    assert len(card["more_weights"]) == len(card["more_files"]) == 2
    about = {row["surrogate"]: row for row in computed_report(blueprint).surrogates}
    budget = ("refinement", "steps", "images_seen", "forward_passes", "backward_passes")
    assert [about["lgv"][key] for key in budget] == ["lgv", 3, 12, 12, 12]
    assert [about["mba"][key] for key in budget] == ["mba", 1, 4, 8, 8]  # each gradient is taken twice
    assert [about["aligned"][key] for key in budget] == ["alignment", 1, 4, 8, 4]  # the witness predicts, too
    assert [about["pair"][key] for key in budget] == ["", None, None, None, None]


def test_pairs_that_were_asked_for_are_compared(blueprint: Blueprint) -> None:
    pairs = {(row["surrogate"], row["baseline"]) for row in computed_report(blueprint).contrasts}
    assert {("lgv", "pair"), ("source", "lgv"), ("lgv", "aligned"), ("lgv", "witness")} <= pairs
    assert ("pair", "witness") not in pairs  # an ensemble is compared where that is asked for


def test_several_networks_are_no_model(blueprint: Blueprint) -> None:
    folder = blueprint.store.path("models/lgv")
    with pytest.raises(InputError, match=r"card.json: this surrogate is 3 networks, of which a model would be the fir"):
        resolve_aligned(ModelConfig(aligned=folder))
