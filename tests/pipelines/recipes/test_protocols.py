"""The protocols of others as recipes: they are valid experiments, and every model in them exists with those weights."""

from pathlib import Path

import pytest
import timm
import torchvision
from timm.models import get_pretrained_cfg

from align_core.attacks import pixel_fraction
from pipelines.experiment import load_experiment

RECIPES = Path(__file__).parents[3] / "pipelines/recipes"

# eps, step, steps, and the architectures of the targets.
PROTOCOLS = {
    "alignment_eps4": (
        "4/255", "1/255", 20,
        "resnet18 resnet50 resnet101 densenet121 inception_v3 vgg19_bn swin_t swin_s vit_tiny_patch16_224 "
        "vit_small_patch16_224 vit_b_16",
    ),
    "transferattack_eps16": (
        "16/255", "1.6/255", 10,
        "vgg16 mobilenet_v2 inception_v3 vit_base_patch16_224 pit_b_224 visformer_small swin_tiny_patch4_window7_224",
    ),
    "tabench_eps8": (
        "8/255", "1/255", 100,
        "vgg19_bn inception_v3 tf_efficientnetv2_m convnext_base vit_base_patch16_224 deit_base_patch16_224 "
        "beit_base_patch16_224 swin_base_patch4_window7_224 mixer_b16_224",
    ),
}  # fmt: skip
SOURCE = {"alignment_eps4": "IMAGENET1K_V1", "transferattack_eps16": "IMAGENET1K_V2", "tabench_eps8": "IMAGENET1K_V1"}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for variable in ("WITNESS_IMAGENET", "WITNESS_NIPS17", "WITNESS_TABENCH"):
        monkeypatch.setenv(variable, str(tmp_path))
    name: str = request.param
    return name


def test_settings_are_those_of_the_protocol(protocol: str) -> None:
    eps, step, steps, targets = PROTOCOLS[protocol]
    experiment = load_experiment(RECIPES / f"{protocol}.yaml")
    models = experiment.models
    assert experiment.name == protocol
    assert [(models[name].timm or models[name].torchvision).partition(".")[0] for name in experiment.targets] == (
        targets.split()
    )
    assert (models[experiment.source].torchvision, models[experiment.source].weights) == ("resnet50", SOURCE[protocol])
    for name, attack in experiment.attacks.items():
        assert attack.eps == pytest.approx(pixel_fraction(eps))
        assert attack.step == pytest.approx(attack.eps if name == "dem" else pixel_fraction(step))
        assert attack.steps == (20 if name == "mef" else steps)  # MEF takes twenty in TransferAttack
        assert attack.kernel == (15 if name in ("ti", "dem") else 0)


def test_every_model_exists_with_its_weights(protocol: str) -> None:
    for name, model in load_experiment(RECIPES / f"{protocol}.yaml").models.items():
        if model.timm:
            assert timm.is_model(model.timm) and get_pretrained_cfg(model.timm).has_weights, name
            assert get_pretrained_cfg(model.timm).num_classes == 1000, name
        else:
            assert model.weights in {w.name for w in torchvision.models.get_model_weights(model.torchvision)}, name
