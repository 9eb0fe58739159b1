"""What is said of a model's input size without building it is the size that the built model has."""

import pytest

from align_core.input_size import input_size_of
from align_core.model_config import ModelConfig, TrainConfig
from align_core.models import build


@pytest.mark.parametrize(
    "settings",
    [
        {"timm": "test_vit"},
        {"timm": "test_vit", "args": {"img_size": 64}},
        {"timm": "test_resnet"},
        {"timm": "test_resnet", "input_size": 40},
        {"torchvision": "squeezenet1_1"},
        {"torchvision": "squeezenet1_1", "input_size": 40},
        {"factory": "pipelines.recipes.digit_models:mlp", "args": {"width": 4}},
        {"factory": "pipelines.recipes.digit_models:mlp", "args": {"width": 4}, "input_size": 16},
    ],
    ids=str,
)
def test_it_is_that_of_the_built_model(settings: dict) -> None:
    config = ModelConfig(train=TrainConfig(), **settings)
    channels = 1 if config.factory else 3
    assert input_size_of(config) == build(config, 10, channels).input_size


def test_weights_of_torchvision_have_sizes_of_their_own() -> None:
    sizes = [
        input_size_of(ModelConfig(torchvision="efficientnet_b1", weights=f"IMAGENET1K_V{version}"))
        for version in (1, 2)
    ]
    assert sizes == [240, 240]
    assert input_size_of(ModelConfig(torchvision="inception_v3", weights="IMAGENET1K_V1")) == 299
