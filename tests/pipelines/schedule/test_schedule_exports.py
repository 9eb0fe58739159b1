"""The public names of `pipelines.schedule`: each is found, and importing the package loads nothing heavy."""

import subprocess
import sys

import pytest

import pipelines.schedule


@pytest.mark.parametrize("name", pipelines.schedule.__all__)
def test_a_public_name_is_found_and_listed(name: str) -> None:
    assert getattr(pipelines.schedule, name).__name__ == name
    assert name in dir(pipelines.schedule)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"module 'pipelines.schedule' has no attribute 'Shedule'"):
        pipelines.schedule.Shedule  # noqa: B018


def test_the_import_loads_no_framework() -> None:
    code = "import sys, pipelines.schedule as s; s.load_schedule; print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
