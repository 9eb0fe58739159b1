"""Networks of one factory that are said to be of no family count as cross-family, and the user is told so."""

import sys
from pathlib import Path

import pytest
from hand_made import HandMade, hand_made


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return hand_made(tmp_path)


def notes(made: HandMade) -> list[str]:
    return [note for note in made.blueprint().inspected.notes if "cross-family" in note]


def test_source_and_targets_of_one_factory_are_named(made: HandMade) -> None:
    models = made.content()["models"]
    del models["near"]["family"]
    made.write(models=models)
    assert notes(made) == [
        "models.near, stranger: hand_made_networks:linear makes them all, and they count as cross-family; give them "
        "one `family` if they are related"
    ]


def test_nothing_is_said_where_families_are_given_or_the_source_is_no_such_network(made: HandMade) -> None:
    assert notes(made) == []


def test_nothing_is_said_of_networks_of_the_same_architecture(made: HandMade) -> None:
    models = made.content()["models"]
    del models["near"]["family"], models["twin"]["family"]
    made.write(models=models, targets=["twin"])
    assert notes(made) == []
