"""The protocols of others as recipes: they are valid experiments, and every model in them exists with those weights."""

from pathlib import Path

import pytest
import timm
import torchvision
from timm.models import get_pretrained_cfg

from align_core.attacks import pixel_fraction
from pipelines.experiment import load_experiment

RECIPES = Path(__file__).parents[3] / "pipelines/recipes"

PROTOCOLS = {
    "alignment_eps4": ("4/255", "1/255", {20}, 11),
    "transferattack_eps16": ("16/255", "1.6/255", {10, 20}, 7),  # MEF takes twenty steps there
    "tabench_eps8": ("8/255", "1/255", {100}, 9),
}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for variable in ("WITNESS_IMAGENET", "WITNESS_NIPS17", "WITNESS_TABENCH"):
        monkeypatch.setenv(variable, str(tmp_path))
    name: str = request.param
    return name


def test_settings_are_those_of_the_protocol(protocol: str) -> None:
    eps, step, steps, targets = PROTOCOLS[protocol]
    experiment = load_experiment(RECIPES / f"{protocol}.yaml")
    assert experiment.name == protocol and len(experiment.targets) == targets
    for name, attack in experiment.attacks.items():
        assert attack.eps == pytest.approx(pixel_fraction(eps))
        assert attack.step == pytest.approx(attack.eps if name == "dem" else pixel_fraction(step))
        assert attack.steps in steps
        assert attack.kernel in (0, 15)


def test_every_model_exists_with_its_weights(protocol: str) -> None:
    for name, model in load_experiment(RECIPES / f"{protocol}.yaml").models.items():
        if model.timm:
            assert timm.is_model(model.timm) and get_pretrained_cfg(model.timm).has_weights, name
            assert get_pretrained_cfg(model.timm).num_classes == 1000, name
        else:
            assert model.weights in {w.name for w in torchvision.models.get_model_weights(model.torchvision)}, name
