"""Variables for libraries: the user's own values count, and each of ours has its reason."""

import os

import pytest

from pipelines.environment import VARIABLES, set_defaults, unset


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable is absent at first, and what a test sets is undone."""
    for group in VARIABLES.values():
        for name in group:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)


@pytest.mark.parametrize("group", VARIABLES)
def test_a_group_is_set_whole(group) -> None:
    wanted = {name: value for name, (value, _) in VARIABLES[group].items()}
    assert unset(group) == wanted
    set_defaults(group)
    assert {name: os.environ[name] for name in wanted} == wanted
    assert unset(group) == {}


def test_a_value_of_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    set_defaults("ray")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_ENABLE_AUTO_CONNECT"] == "0"


def test_every_variable_has_a_reason_and_one_place() -> None:
    names = [name for group in VARIABLES.values() for name in group]
    assert len(set(names)) == len(names)
    for group in VARIABLES.values():
        assert all(reason.endswith(".") and len(reason.split()) > 4 for _, reason in group.values())
