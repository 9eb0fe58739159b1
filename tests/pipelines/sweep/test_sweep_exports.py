"""What `pipelines.sweep` exports is there, and importing the package alone does not import what it depends on."""

import subprocess
import sys

import pytest

import pipelines.sweep

EXPORTS = ["Options", "Space", "SweepResult", "TrialRow", "load_space", "search_settings", "tune_experiment"]


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_name_is_there_and_listed(name):
    assert getattr(pipelines.sweep, name).__module__.startswith("pipelines.sweep.")
    assert name in dir(pipelines.sweep)


def test_another_name_is_not():
    with pytest.raises(AttributeError, match=r"module 'pipelines\.sweep' has no attribute 'tune'"):
        _ = pipelines.sweep.tune


def test_the_package_is_imported_without_torch_ray_and_mlflow():
    heavy = "{'torch', 'ray', 'mlflow', 'optuna', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, pipelines.sweep; sys.exit(str({heavy}) if {heavy} else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
