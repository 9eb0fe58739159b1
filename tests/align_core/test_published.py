"""What libraries publish beside weights: it goes onto cards, so that a stored copy predicts what its model does."""

import ast
import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from align_core.errors import InputError
from align_core.images import Fit
from align_core.model_config import ModelConfig, TrainConfig, model_config_as_dict
from align_core.models import Classifier, build, load
from align_core.published import Crop, as_built, crops, other_normalisations, torchvision_arguments
from align_core.weights import to_bytes

pytestmark = pytest.mark.filterwarnings("ignore:auxiliary heads in the pretrained googlenet:UserWarning")


def logits(classifier: Classifier, size: int) -> torch.Tensor:
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return classifier(pixels)


def copied(classifier: Classifier, config: ModelConfig, classes: int, folder: Path) -> Classifier:
    """The model after a round trip through a folder as Witness writes it."""
    folder.mkdir()
    card = {"model": model_config_as_dict(as_built(config, classes, 3))}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "model.safetensors").write_bytes(to_bytes(classifier.net.state_dict()))
    return load(ModelConfig(aligned=str(folder)), classes, channels=3)


def published_weights(name: str, cache: Path) -> Path:
    """Puts random weights where torch looks for the published ones, with the tensors that those have."""
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    arguments: dict[str, Any] = {"image_size": weights.meta["min_size"][0]} if name.startswith("vit") else {}
    if name in ("googlenet", "inception_v3"):
        arguments["init_weights"] = False
    torch.manual_seed(0)
    file = cache / Path(weights.url).name
    torch.save(torchvision.models.get_model(name, weights=None, **arguments).state_dict(), file)
    return file


class TestTheCopyPredictsWhatTheModelDoes:
    @pytest.mark.parametrize(
        ("name", "size", "args"),
        [
            ("googlenet", 64, {}),
            ("googlenet", 64, {"aux_logits": True}),
            ("googlenet", 64, {"transform_input": False}),
            ("inception_v3", 96, {}),
            pytest.param("vit_b_32", 64, {}, marks=pytest.mark.slow),
        ],
    )
    def test_published_weights_of_torchvision(
        self, torch_cache: Path, tmp_path: Path, name: str, size: int, args: dict[str, Any]
    ) -> None:
        published_weights(name, torch_cache)
        config = ModelConfig(torchvision=name, weights="IMAGENET1K_V1", args=args)
        classifier = load(config, classes=1000, channels=3)
        copy = copied(classifier, config, 1000, tmp_path / "copy")
        assert torch.equal(logits(copy, size), logits(classifier, size))
        assert copy.net.state_dict().keys() == classifier.net.state_dict().keys()  # auxiliary heads too
        assert getattr(copy.net, "transform_input", None) == getattr(classifier.net, "transform_input", None)

    @pytest.mark.parametrize("transform_input", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_weights_of_inception_from_a_file(self, torch_cache: Path, tmp_path: Path, transform_input: bool) -> None:
        file = published_weights("inception_v3", torch_cache)
        args = {"transform_input": transform_input}
        config = ModelConfig(torchvision="inception_v3", weights=str(file), args=args)
        from_file = load(config, classes=1000, channels=3)
        of_library = load(ModelConfig(torchvision="inception_v3", weights="IMAGENET1K_V1"), classes=1000, channels=3)
        assert torch.equal(logits(from_file, 96), logits(of_library, 96)) is transform_input
        assert torch.equal(logits(copied(from_file, config, 1000, tmp_path / "c"), 96), logits(from_file, 96))

    def test_a_model_trained_here(self, tmp_path: Path) -> None:
        config = ModelConfig(torchvision="googlenet", train=TrainConfig())
        classifier = build(config, classes=4, channels=3).eval()
        copy = copied(classifier, config, 4, tmp_path / "copy")
        assert torch.equal(logits(copy, 64), logits(classifier, 64))

    def test_pretrained_weights_of_timm_and_what_args_lays_over_their_configuration(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        net = timm.create_model("test_vit", num_classes=5, img_size=96)
        save_file(net.state_dict(), tmp_path / "w.safetensors")
        overlay = {
            "file": str(tmp_path / "w.safetensors"), "num_classes": 5, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
            "input_size": [3, 96, 96],
        }  # fmt: skip
        config = ModelConfig(timm="test_vit", weights="pretrained", args={"pretrained_cfg_overlay": overlay})
        classifier = load(config, classes=5, channels=3)
        assert classifier.mean_C11.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
        copy = copied(classifier, config, 5, tmp_path / "copy")
        assert torch.equal(logits(copy, 32), logits(classifier, 32))

    def test_grey_images(self) -> None:
        config = ModelConfig(timm="test_resnet", train=TrainConfig())
        card = as_built(config, 7, 1)
        assert card.mean == pytest.approx(build(config, 7, 1).mean_C11.flatten().tolist())
        assert card.args == {"in_chans": 1, "num_classes": 7}


class TestCard:
    @pytest.mark.parametrize(
        "config",
        [
            ModelConfig(timm="resnet50", weights="pretrained"),
            ModelConfig(timm="resnet50.tv_in1k", weights="w.pt"),
            ModelConfig(torchvision="inception_v3", weights="IMAGENET1K_V1"),
            ModelConfig(torchvision="resnet50", weights="IMAGENET1K_V2", args={"norm_layer": None}),
        ],
    )
    def test_a_copy_has_the_structure_of_its_model(self, config: ModelConfig) -> None:
        assert as_built(config, 1000, 3).structure == config.structure
        assert replace(config, args={"depth": 3}).structure != config.structure

    @pytest.mark.parametrize(("name", "full"), [("resnet50", "resnet50.a1_in1k"), ("resnet50.tv_in1k",) * 2])
    def test_timms_tag_and_preprocessing_are_written_out(self, name: str, full: str) -> None:
        card = as_built(ModelConfig(timm=name, weights="pretrained"), 1000, 3)
        published = timm.get_pretrained_cfg(full)
        assert (card.timm, card.input_size) == (full, published.input_size[-1])
        assert (card.mean, card.std) == (published.mean, published.std)
        assert card.args == {"in_chans": 3, "num_classes": 1000}

    def test_a_fixed_input_size_is_an_argument(self) -> None:
        card = as_built(ModelConfig(timm="vit_base_patch16_384", weights="pretrained"), 1000, 3)
        assert card.args["img_size"] == card.input_size == 384

    def test_own_preprocessing_stays(self) -> None:
        own = ModelConfig(timm="resnet50", weights="w.pt", mean=(0, 0, 0), std=(1, 1, 1), input_size=96)
        card = as_built(own, 10, 3)
        assert (card.mean, card.std, card.input_size) == ((0, 0, 0), (1, 1, 1), 96)
        assert card.args["num_classes"] == 10

    def test_a_factory_is_as_it_is_written(self) -> None:
        config = ModelConfig(factory="a:b", weights="w", args={"depth": 3})
        assert as_built(config, 10, 3) == config


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_file_for_a_network_that_transforms_its_input_needs_a_decision(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: the constructor's argument transform_input"):
        build(ModelConfig(torchvision=name, weights="w.pt"), classes=1000, channels=3)


def test_every_argument_that_torchvision_sets_with_weights_is_known() -> None:
    """Reads torchvision's constructors for what they set where weights are given."""
    for name in torchvision.models.list_models(torchvision.models):
        builder = inspect.unwrap(torchvision.models.get_model_builder(name))
        functions = [ast.parse(inspect.getsource(builder))]
        helpers = [
            v for v in vars(inspect.getmodule(builder)).values() if inspect.isfunction(v) and v.__name__[0] == "_"
        ]
        functions += [ast.parse(inspect.getsource(f)) for f in helpers if f.__module__ == builder.__module__]
        brought = set()
        for node in (node for function in functions for node in ast.walk(function)):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "weights is not None":
                calls = [call for part in node.body for call in ast.walk(part) if isinstance(call, ast.Call)]
                brought |= {
                    ast.literal_eval(c.args[1]) for c in calls if ast.unparse(c.func) == "_ovewrite_named_param"
                }
        weights = torchvision.models.get_model_weights(name).DEFAULT
        known = torchvision_arguments(ModelConfig(torchvision=name, weights=weights.name), classes=7)
        assert known.keys() == brought, name


class TestOtherNormalisations:
    def test_of_a_file_without_a_tag(self) -> None:
        found = other_normalisations(ModelConfig(timm="vit_base_patch16_224", weights="w.pt"))
        assert "vit_base_patch16_224.mae" in found and "vit_base_patch16_224.augreg_in21k" not in found

    @pytest.mark.parametrize(
        "settings",
        [
            {"timm": "vit_base_patch16_224.mae", "weights": "w.pt"},
            {"timm": "vit_base_patch16_224", "weights": "pretrained"},
            {"timm": "vit_base_patch16_224", "weights": "w.pt", "mean": (0, 0, 0), "std": (1, 1, 1)},
            {"timm": "test_vit", "weights": "w.pt"},
            {"torchvision": "resnet18", "weights": "w.pt"},
            {"timm": "vit_base_patch16_224", "train": TrainConfig()},
        ],
    )
    def test_none_where_nothing_is_in_doubt(self, settings: dict[str, Any]) -> None:
        assert other_normalisations(ModelConfig(**settings)) == []


class TestCrops:
    def test_of_a_tag_of_timm(self) -> None:
        config = ModelConfig(timm="resnet50.tv_in1k", weights="pretrained")
        assert crops(config, 1000) == [Crop("resnet50.tv_in1k", 224, 256, "bilinear")]

    @pytest.mark.parametrize("name", ["IMAGENET1K_V2", "DEFAULT"])
    def test_of_weights_of_torchvision(self, name: str) -> None:
        config = ModelConfig(torchvision="resnet50", weights=name)
        assert crops(config, 1000) == [Crop("ResNet50_Weights.IMAGENET1K_V2", 224, 232, "bilinear")]

    def test_a_file_may_hold_any_of_the_published_weights(self) -> None:
        found = crops(ModelConfig(torchvision="resnet50", weights="w.pt"), 1000)
        assert {crop.resize for crop in found} == {232, 256}

    def test_weights_without_a_classifier_are_none_of_them(self) -> None:
        """torchvision has such weights for VGG-16, made for their features."""
        found = crops(ModelConfig(torchvision="vgg16", weights="w.pt"), 1000)
        assert [crop.origin for crop in found] == ["VGG16_Weights.IMAGENET1K_V1"]

    @pytest.mark.parametrize(
        "config",
        [
            ModelConfig(torchvision="resnet50", weights="w.pt"),
            ModelConfig(timm="resnet50", weights="w.pt"),
            ModelConfig(timm="resnet50", train=TrainConfig()),
            ModelConfig(factory="a:b", weights="w.pt"),
        ],
    )
    def test_none_for_weights_of_ones_own(self, config: ModelConfig) -> None:
        assert crops(config, 10) == []

    @pytest.mark.parametrize(
        ("fit", "is_used"),
        [
            (Fit(224, 256, "bilinear"), True),
            (Fit(160, 183, "bilinear"), True),
            (Fit(224, 256, "bicubic"), False),
            (Fit(224, None, "bilinear"), False),
            (Fit(224, 236, "bilinear"), False),
        ],
    )
    def test_is_used(self, fit: Fit, is_used: bool) -> None:
        assert Crop("w", 224, 256, "bilinear").is_used(fit) is is_used
        assert not Crop("w", 224, 256, "bilinear", "squash").is_used(fit)


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
def test_the_size_is_that_of_the_built_model(settings: dict[str, Any]) -> None:
    config = ModelConfig(train=TrainConfig(), **settings)
    channels = 1 if config.factory else 3
    assert as_built(config, 10, channels).input_size == build(config, 10, channels).input_size


def test_weights_of_torchvision_have_sizes_of_their_own() -> None:
    efficientnets = [ModelConfig(torchvision="efficientnet_b1", weights=f"IMAGENET1K_V{number}") for number in (1, 2)]
    assert [as_built(config, 1000, 3).input_size for config in efficientnets] == [240, 240]
    assert as_built(ModelConfig(torchvision="inception_v3", weights="IMAGENET1K_V1"), 1000, 3).input_size == 299
