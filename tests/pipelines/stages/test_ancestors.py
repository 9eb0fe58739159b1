"""A model that was aligned in another experiment brings along what it was made from, which no target may be."""

from pathlib import Path
from typing import Any

import pytest
from hand_made import CURVE, HandMade, hand_made
from safetensors.torch import load, save_file

from align_core.errors import InputError
from align_core.weights import to_bytes
from pipelines.stages.align import commit

EARLIER = {"earlier": {"aligned": "out put/by-hand/models/aligned"}}  # from near, to seer


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = hand_made(tmp_path)
    made.finish()
    return made


def write_second(first: HandMade, **changes: Any) -> None:
    first.write(name="second", models={**first.content()["models"], **EARLIER}, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "earlier", "targets": ["seer"]}, "targets: earlier was aligned to seer, as its card says"),
        ({"source": "earlier", "targets": ["twin", "near"]}, "targets: earlier was aligned from near"),
        (
            {"variants": {"old": {"model": "earlier"}}, "source": "cousin", "targets": ["twin", "seer"]},
            "targets: earlier was aligned to seer",
        ),
        (
            {"witnesses": ["earlier"], "source": "cousin", "targets": ["twin"], "validation_targets": ["seer"]},
            "validation_targets: earlier was aligned to seer",
        ),
    ],
)
def test_a_target_that_the_attacker_aligned_to(first: HandMade, changes: dict[str, Any], message: str) -> None:
    write_second(first, **{"witnesses": ["other"], **changes})
    with pytest.raises(InputError, match=message):
        first.blueprint()


@pytest.mark.parametrize("target", ["near", "seer"])
def test_what_an_earlier_model_was_made_from_is_no_target_of_what_is_made_from_it(first: HandMade, target: str) -> None:
    write_second(first, source="earlier", witnesses=["other"], targets=["twin"])
    blueprint = first.blueprint()
    (making,) = [own for own in blueprint.alignments() if own.name == "aligned"]
    state = load((first.output / "by-hand" / "models" / "aligned" / "model.safetensors").read_bytes())
    weights = {name: value + 1 for name, value in state.items()}
    commit(blueprint.store, making, [to_bytes(weights)], CURVE, 1.0, (1, 8, 8))
    later = {"later": {"aligned": "out put/second/models/aligned"}}
    models = {**first.content()["models"], **later}
    first.write(name="third", models=models, source="later", witnesses=["cousin"], targets=[target])
    with pytest.raises(InputError, match=f"later was aligned from or to a model .* made from {target}, as"):
        first.blueprint()


@pytest.mark.parametrize("train", [{}, {"train": {"epochs": 1}}])
def test_weights_that_are_named_by_their_file_bring_along_their_card(first: HandMade, train: dict[str, Any]) -> None:
    """The way to train an aligned model further is to name its file as `weights`."""
    file = first.output / "by-hand" / "models" / "aligned" / "model.safetensors"
    models = first.content()["models"]
    models["cousin"] = {**models["near"], "weights": str(file), **train}
    settings = {"models": models, "source": "cousin", "witnesses": ["other"], "targets": ["twin", "seer"]}
    first.write(name="second", **settings)
    with pytest.raises(InputError, match="targets: cousin was aligned to seer, as its card says"):
        first.blueprint()
    file.with_name("card.json").write_text("{")  # anything may lie beside a file of weights
    first.blueprint()


def test_a_model_that_was_trained_from_a_target(first: HandMade) -> None:
    models = first.content()["models"]
    trained = {**models["near"], "train": {"epochs": 1}}
    first.write(models={**models, "near": trained}, controls=[])
    blueprint = first.blueprint()
    (making,) = blueprint.trainings()
    state = load((first.folder / "near.safetensors").read_bytes())
    weights = {name: value + 1 for name, value in state.items()}
    commit(blueprint.store, making, [to_bytes(weights)], CURVE, 1.0, (1, 8, 8))
    later = {"aligned": "out put/by-hand/trained/near"}
    first.write(name="second", models={**models, "cousin": later}, source="cousin", targets=["twin", "near"])
    with pytest.raises(InputError, match="targets: cousin was aligned from near, as its card says"):
        first.blueprint()


@pytest.mark.parametrize(("source", "is_noted"), [("near", False), ("cousin", True)])
def test_gains_of_a_model_that_came_from_another_source(first: HandMade, source: str, is_noted: bool) -> None:
    write_second(first, source=source, targets=["twin"], variants={"old": {"model": "earlier"}})
    noted = "variants.old: earlier was not aligned from cousin, to which its gains refer"
    assert any(note.startswith(noted) for note in first.blueprint().inspected.notes) is is_noted


def test_weights_that_the_card_does_not_describe(first: HandMade) -> None:
    file = first.output / "by-hand" / "models" / "aligned" / "model.safetensors"
    save_file({name: value + 1 for name, value in load(file.read_bytes()).items()}, file)
    write_second(first, variants={"old": {"model": "earlier"}})
    with pytest.raises(InputError, match=r"models\.earlier: .* is not the file that card\.json describes"):
        first.blueprint()
