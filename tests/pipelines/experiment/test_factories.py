"""Which factory modules are sent to workers: those that the workers cannot import by themselves."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from align_core.errors import InputError
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.experiment.factories import look_in, modules_to_ship

FILE = """\
name: x
data: {{classes: 10, image_size: 16, train: {{kind: digits}}, test: {{kind: digits}}}}
models:
  a: &net {{factory: "{factory}", train: {{epochs: 1}}}}
  b: *net
  c: *net
source: a
witnesses: [b]
targets: [c]
attacks: {{pgd: {{method: pgd, eps: 8/255, step: 2/255, steps: 2}}}}
"""


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Experiment]:
    monkeypatch.setattr(sys, "path", list(sys.path))

    def made(factory: str, folder: str = "mine") -> Experiment:
        file = tmp_path / folder / "x.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FILE.format(factory=factory))
        loaded = load_experiment(file)
        look_in(str(loaded.factories))
        return loaded

    return made


def module(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


@pytest.mark.parametrize("folder", ["mine", "lib/python3/site-packages/pipelines/recipes"])
def test_a_module_beside_the_experiment_is_sent_wherever_it_lies(
    tmp_path: Path, experiment: Callable[..., Experiment], folder: str
) -> None:
    beside = module(tmp_path / folder / "nets_beside_it.py")
    assert modules_to_ship(experiment("nets_beside_it:net", folder)) == [str(beside)]


def test_a_package_beside_the_experiment_is_sent_whole(tmp_path: Path, experiment: Callable[..., Experiment]) -> None:
    package = module(tmp_path / "mine" / "nets_in_a_package" / "__init__.py").parent
    module(package / "deep.py")
    assert modules_to_ship(experiment("nets_in_a_package.deep:net")) == [str(package)]


def test_a_folder_of_factories_that_is_reached_through_a_link_is_beside(
    tmp_path: Path, experiment: Callable[..., Experiment]
) -> None:
    module(tmp_path / "site-packages" / "recipes" / "nets_behind_a_link.py")
    (tmp_path / "link").symlink_to(tmp_path / "site-packages" / "recipes")
    assert modules_to_ship(experiment("nets_behind_a_link:net", "link")) == [
        str(tmp_path / "link" / "nets_behind_a_link.py")
    ]


def test_a_module_on_the_path_is_sent_unless_it_is_installed(
    tmp_path: Path, experiment: Callable[..., Experiment]
) -> None:
    elsewhere = module(tmp_path / "code" / "nets_of_a_colleague.py")
    module(tmp_path / "site-packages" / "nets_from_a_wheel.py")
    sys.path += [str(tmp_path / "code"), str(tmp_path / "site-packages")]
    assert modules_to_ship(experiment("nets_of_a_colleague:net")) == [str(elsewhere)]
    assert modules_to_ship(experiment("nets_from_a_wheel:net")) == []


@pytest.mark.parametrize("factory", ["pipelines.recipes.digit_models:cnn", "torchvision.models:resnet18"])
def test_witness_and_other_installed_packages_are_not_sent(experiment: Callable[..., Experiment], factory: str) -> None:
    assert modules_to_ship(experiment(factory)) == []


def test_an_experiment_in_site_packages_itself_does_not_send_what_is_installed_there(
    tmp_path: Path, experiment: Callable[..., Experiment]
) -> None:
    module(tmp_path / "site-packages" / "nets_installed_beside_it.py")
    assert modules_to_ship(experiment("nets_installed_beside_it:net", "site-packages")) == []


def test_a_module_that_is_nowhere_is_named(experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(InputError, match=r"factory gone\.deep: no module 'gone' beside the experiment file"):
        modules_to_ship(experiment("gone.deep:net"))
