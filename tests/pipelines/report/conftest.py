"""An experiment whose outcomes were made by hand, for the tests of its report."""

import pytest
from empty_store import put_empty_store
from hand_made import HandMade, hand_made

from pipelines.report.page import make_report
from pipelines.stages.blueprint import Blueprint

# On every target: `aligned` gains by pgd and loses by mi, `witness` differs by pgd in nothing and by mi in one image.
OUTCOMES = {
    f"outcomes/{surrogate}/{attack}/{target}": digits
    for (surrogate, attack), digits in {
        ("source", "pgd"): "100000000000",
        ("aligned", "pgd"): "111111111000",
        ("witness", "pgd"): "100000000000",
        ("source", "mi"): "111111111000",
        ("aligned", "mi"): "100000000000",
        ("witness", "mi"): "111111110000",
    }.items()
    for target in ("twin", "cousin", "stranger")
}


@pytest.fixture
def experiment(tmp_path) -> HandMade:
    return hand_made(tmp_path)


@pytest.fixture(scope="session")
def outcomes() -> dict[str, str]:
    return OUTCOMES


@pytest.fixture
def blueprint(experiment, outcomes) -> Blueprint:
    return experiment.finish(outcomes)


@pytest.fixture(scope="session")
def reported(outcomes, tmp_path_factory) -> HandMade:
    """The experiment with these outcomes and its report, which no test changes: what does works on a copy."""
    made = hand_made(tmp_path_factory.mktemp("reported"))
    make_report(made.finish(outcomes))
    return made


@pytest.fixture
def unlogged(reported, tmp_path, monkeypatch) -> HandMade:
    """A copy of it with an empty MLflow database, to which it was not logged."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = reported.copied(tmp_path / "copy")
    put_empty_store(copy.output)
    return copy
