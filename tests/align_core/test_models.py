"""Models from timm, torchvision, a factory and a folder that Witness wrote, and their preprocessing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, Normalize, Resize

from align_core.errors import InputError
from align_core.model_config import ModelConfig, TrainConfig, model_config_as_dict, model_config_from, resolve_aligned
from align_core.models import Classifier, Ensemble, build, load
from align_core.trial import try_model

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FACTORY = """
from torch import nn
def linear(features=12, classes=2):
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes))
def number():
    return 3
"""
FLATTEN = ModelConfig(factory="torch.nn:Flatten", train=TrainConfig())  # its logits are its input pixels


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """A user's linear model for images of shape (3, 2, 2) and two classes, with a weights file."""
    (tmp_path / "users_own_models.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    save_file({"1.weight": torch.randn(2, 12), "1.bias": torch.randn(2)}, tmp_path / "own.safetensors")
    return ModelConfig(factory="users_own_models:linear", weights=str(tmp_path / "own.safetensors"))


def pixels(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


class TestTimm:
    def test_weights_from_a_file_behind_timms_own_preprocessing(self, tmp_path: Path) -> None:
        net = timm.create_model("test_resnet", num_classes=7).eval()
        torch.save(net.state_dict(), tmp_path / "w.pth")
        classifier = load(ModelConfig(timm="test_resnet", weights=str(tmp_path / "w.pth")), classes=7, channels=3)
        settings = net.pretrained_cfg
        resized = Resize(settings["input_size"][-1], InterpolationMode.BICUBIC, antialias=True)(pixels(2, 3, 32, 32))
        expected = net(Normalize(settings["mean"], settings["std"])(resized))
        torch.testing.assert_close(classifier(pixels(2, 3, 32, 32)), expected)

    def test_pretrained_weights_keep_their_own_classes(self, tmp_path: Path) -> None:
        net = timm.create_model("test_resnet").eval()
        save_file(net.state_dict(), tmp_path / "w.safetensors")
        overlay = {"pretrained_cfg_overlay": {"file": str(tmp_path / "w.safetensors")}}  # replaces the download
        config = ModelConfig(timm="test_resnet", weights="pretrained", args=overlay)
        classifier = load(config, classes=7, channels=3)
        normalise = Normalize(net.pretrained_cfg["mean"], net.pretrained_cfg["std"])
        torch.testing.assert_close(classifier(pixels(1, 3, 160, 160)), net(normalise(pixels(1, 3, 160, 160))))
        assert classifier(pixels(1, 3, 160, 160)).shape == (1, 1000)
        with pytest.raises(InputError, match="not \\(1, 7\\)"):
            try_model(classifier, "m", (3, 160, 160), classes=7)

    def test_pretrained_weights_that_cannot_be_had(self, tmp_path: Path) -> None:
        overlay = {"pretrained_cfg_overlay": {"file": str(tmp_path / "nowhere.safetensors")}}
        with pytest.raises(InputError, match="pretrained weights cannot be loaded here"):
            build(ModelConfig(timm="test_resnet", weights="pretrained", args=overlay), classes=7, channels=3)

    def test_grey_images(self) -> None:
        classifier = build(ModelConfig(timm="test_vit", train=TrainConfig()), classes=10, channels=1)
        assert classifier(pixels(1, 1, 16, 16)).shape == (1, 10)

    def test_grey_normalisation_is_the_mean_of_the_colours(self) -> None:
        classifier = build(ModelConfig(timm="resnet10t", train=TrainConfig()), classes=10, channels=1)
        assert classifier.mean_C11.flatten().tolist() == pytest.approx([sum(IMAGENET_MEAN) / 3])
        assert classifier.std_C11.flatten().tolist() == pytest.approx([sum(IMAGENET_STD) / 3])

    def test_arguments_reach_the_model(self) -> None:
        config = ModelConfig(timm="test_vit", args={"img_size": 32, "patch_size": 8, "depth": 1}, train=TrainConfig())
        classifier = build(config, classes=10, channels=3)
        assert len(classifier.net.blocks) == 1
        assert classifier.input_size == 32

    @pytest.mark.parametrize(
        ("settings", "complaint"),
        [
            ({"timm": "no_such_model"}, r"Unknown model \(no_such_model\)$"),
            ({"timm": "resnet_18"}, r"timm: resnet_18: .*; did you mean 'resnet18'\?$"),
            ({"timm": "resnet50.no_such_tag", "weights": "pretrained"}, "no_such_tag"),
            ({"timm": "test_resnet", "args": {"colour": "red"}}, "colour"),
        ],
    )
    def test_refusals(self, settings: dict[str, Any], complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            build(ModelConfig(**{"weights": "w.pt", **settings}), classes=10, channels=3)


class TestTorchvision:
    def test_weights_from_a_file_behind_torchvisions_own_preprocessing(self, tmp_path: Path) -> None:
        net = torchvision.models.squeezenet1_1(num_classes=7).eval()
        save_file(net.state_dict(), tmp_path / "w.safetensors")
        config = ModelConfig(torchvision="squeezenet1_1", weights=str(tmp_path / "w.safetensors"))
        resized = Resize(224, InterpolationMode.BICUBIC, antialias=True)(pixels(2, 3, 64, 64))
        expected = net(Normalize(IMAGENET_MEAN, IMAGENET_STD)(resized))
        torch.testing.assert_close(load(config, classes=7, channels=3)(pixels(2, 3, 64, 64)), expected)

    # GoogLeNet and Inception were converted from TensorFlow, and transform their input when their weights are loaded.
    @pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet"])
    @pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet:FutureWarning")
    def test_weights_of_the_enumeration(self, torch_cache: Path, name: str) -> None:
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        content = torchvision.models.get_model(name).state_dict()
        torch.save(content, torch_cache / Path(weights.url).name)
        classifier = load(ModelConfig(torchvision=name, weights="IMAGENET1K_V1"), classes=1000, channels=3)
        net = torchvision.models.get_model(name, weights=weights).eval()
        images = pixels(2, 3, 224, 224)
        torch.testing.assert_close(classifier(images), net(Normalize(IMAGENET_MEAN, IMAGENET_STD)(images)))

    @pytest.mark.parametrize("content", [b"", b"<html>no network</html>", b"PK\3\4 cut short"])
    def test_weights_that_cannot_be_had(self, torch_cache: Path, content: bytes) -> None:
        (torch_cache / "squeezenet1_1-b8a52dc0.pth").write_bytes(content)
        with pytest.raises(InputError, match="the weights IMAGENET1K_V1 of squeezenet1_1 cannot be loaded here"):
            build(ModelConfig(torchvision="squeezenet1_1", weights="IMAGENET1K_V1"), classes=1000, channels=3)

    def test_weights_of_another_model(self, torch_cache: Path) -> None:
        torch.save({"w": torch.ones(1)}, torch_cache / "squeezenet1_1-b8a52dc0.pth")
        with pytest.raises(InputError, match="squeezenet1_1"):
            build(ModelConfig(torchvision="squeezenet1_1", weights="IMAGENET1K_V1"), classes=1000, channels=3)

    def test_code_in_torchs_cache_is_never_run(self, torch_cache: Path, tmp_path: Path) -> None:
        class MakesFolder:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "marker"),)

        torch.save({"w": MakesFolder()}, torch_cache / "squeezenet1_1-b8a52dc0.pth")
        with pytest.raises(InputError, match="cannot be loaded here"):
            build(ModelConfig(torchvision="squeezenet1_1", weights="IMAGENET1K_V1"), classes=1000, channels=3)
        assert not (tmp_path / "marker").exists()

    @pytest.mark.parametrize(
        ("settings", "complaint"),
        [
            ({"torchvision": "no_such_model"}, "no image classifier 'no_such_model'"),
            ({"torchvision": "resnet-18"}, r"no image classifier 'resnet-18'; did you mean 'resnet18'\?"),
            ({"torchvision": "fasterrcnn_resnet50_fpn"}, "no image classifier"),
            ({"torchvision": "resnet18", "weights": "IMAGENET1K_V9"}, "it has IMAGENET1K_V1"),
            ({"torchvision": "resnet18", "args": {"colour": "red"}}, "colour"),
        ],
    )
    def test_refusals(self, settings: dict[str, Any], complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            build(ModelConfig(**{"weights": "w.pt", **settings}), classes=10, channels=3)


class TestFactory:
    def test_the_users_own_model(self, factory: ModelConfig, tmp_path: Path) -> None:
        classifier = load(factory, classes=2, channels=3)
        weight, bias = classifier.net[1].weight, classifier.net[1].bias
        torch.testing.assert_close(classifier(pixels(4, 3, 2, 2)), pixels(4, 12) @ weight.T + bias)

    def test_loaded_models_are_frozen(self, factory: ModelConfig) -> None:
        classifier = load(factory, classes=2, channels=3)
        assert not classifier.training
        assert not any(parameter.requires_grad for parameter in classifier.parameters())

    def test_other_weights_in_place_of_its_own(self, factory: ModelConfig, tmp_path: Path) -> None:
        state = {"1.weight": torch.ones(2, 12), "1.bias": torch.zeros(2)}
        save_file(state, tmp_path / "other.safetensors")
        for weights in (state, tmp_path / "other.safetensors"):
            logits = load(factory, classes=2, channels=3, weights=weights)(torch.ones(1, 3, 2, 2))
            assert logits.tolist() == [[12.0, 12.0]]

    def test_weights_that_do_not_fit(self, factory: ModelConfig, tmp_path: Path) -> None:
        config = ModelConfig(factory=factory.factory, weights=factory.weights, args={"classes": 3})
        with pytest.raises(InputError, match=r"own\.safetensors.*1\.weight is \(2, 12\), the model's \(3, 12\)"):
            load(config, classes=3, channels=3)

    @pytest.mark.parametrize(
        ("settings", "complaint"),
        [
            ({"factory": "users_own_models:conv"}, "no attribute 'conv'"),
            ({"factory": "no_such_module:conv"}, "No module named"),
            ({"factory": "users_own_models:number"}, "returned a int"),
            ({"args": {"depth": 3}}, "depth"),
        ],
    )
    def test_refusals(self, factory: ModelConfig, settings: dict[str, Any], complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            build(ModelConfig(**{"factory": factory.factory, "weights": "w.pt", **settings}), classes=2, channels=3)


class TestAligned:
    def folder(self, tmp_path: Path, config: ModelConfig) -> str:
        """A folder as Witness writes it, with the card of `config` and weights that differ from the original ones."""
        (tmp_path / "aligned").mkdir()
        (tmp_path / "aligned/card.json").write_text(json.dumps({"model": model_config_as_dict(config), "more": 1}))
        save_file({"1.weight": torch.ones(2, 12), "1.bias": torch.zeros(2)}, tmp_path / "aligned/model.safetensors")
        return str(tmp_path / "aligned")

    @pytest.mark.parametrize("trained_here", [False, True])
    def test_loads_without_the_original_weights(self, factory: ModelConfig, tmp_path: Path, trained_here: bool) -> None:
        origin = {"train": TrainConfig(epochs=3)} if trained_here else {"weights": "gone.pt"}
        config = ModelConfig(factory=factory.factory, mean=HALF, std=(0.25, 0.25, 0.25), **origin)
        classifier = load(ModelConfig(aligned=self.folder(tmp_path, config)), classes=2, channels=3)
        assert classifier(torch.ones(1, 3, 2, 2)).tolist() == [[24.0, 24.0]]  # 12 pixels of (1 - 0.5) / 0.25

    def test_own_preprocessing_goes_before_that_of_the_card(self, factory: ModelConfig, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, ModelConfig(factory=factory.factory, weights="gone.pt", mean=HALF, std=HALF))
        config = ModelConfig(aligned=folder, mean=(0, 0, 0), std=(1, 1, 1), family="mine")
        assert load(config, classes=2, channels=3)(torch.ones(1, 3, 2, 2)).tolist() == [[12.0, 12.0]]
        assert resolve_aligned(config).family == "mine"

    def test_a_folder_that_is_not_there_names_those_of_its_seeds(self, tmp_path: Path) -> None:
        for name in ("aligned~5", "aligned~3", "other~3"):
            (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=r"card.json: there is no such file; of several seeds there are aligned~3"):
            resolve_aligned(ModelConfig(aligned=str(tmp_path / "aligned")))
        with pytest.raises(InputError, match=r"alined.card.json: there is no such file$"):
            resolve_aligned(ModelConfig(aligned=str(tmp_path / "alined")))

    @pytest.mark.parametrize(
        "card", ["", "{", "[]", "{}", '{"model": null}', '{"model": []}', '{"model": {}}', '{"model": {"timm": "x"}}']
    )
    def test_not_a_card(self, factory: ModelConfig, tmp_path: Path, card: str) -> None:
        folder = self.folder(tmp_path, factory)
        (tmp_path / "aligned/card.json").write_text(card)
        with pytest.raises(InputError, match=r"card\.json: not the card"):
            load(ModelConfig(aligned=folder), classes=2, channels=3)

    @pytest.mark.parametrize("gone", ["card.json", "model.safetensors"])
    def test_incomplete_folder(self, factory: ModelConfig, tmp_path: Path, gone: str) -> None:
        folder = self.folder(tmp_path, factory)
        (tmp_path / "aligned" / gone).unlink()
        with pytest.raises(InputError, match=gone):
            load(ModelConfig(aligned=folder), classes=2, channels=3)

    def test_an_aligned_model_aligned_again(self, factory: ModelConfig, tmp_path: Path) -> None:
        (tmp_path / "again").mkdir()
        first = ModelConfig(aligned=self.folder(tmp_path, factory))
        (tmp_path / "again/card.json").write_text(json.dumps({"model": model_config_as_dict(first)}))
        save_file({"1.weight": torch.zeros(2, 12), "1.bias": torch.ones(2)}, tmp_path / "again/model.safetensors")
        classifier = load(ModelConfig(aligned=str(tmp_path / "again")), classes=2, channels=3)
        assert classifier(torch.ones(1, 3, 2, 2)).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(timm="test_vit", weights="pretrained"),
        ModelConfig(timm="test_vit", train=TrainConfig(epochs=3, crop="pad4"), family="vit"),
        ModelConfig(factory="a:b", weights="w", args={"widths": [1, 2], "deep": {"x": None}}, mean=(0.5,), std=(0.1,)),
        ModelConfig(torchvision="resnet18", weights="w.pt", input_size=64),
    ],
)
def test_a_card_holds_the_whole_configuration(config: ModelConfig) -> None:
    assert model_config_from(json.loads(json.dumps(model_config_as_dict(config)))) == config


class TestClassifier:
    def test_normalises_each_channel(self) -> None:
        classifier = Classifier(nn.Flatten(), mean=(0.5, 0.0, 1.0), std=(0.5, 0.25, 2.0))
        image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
        assert classifier(image).tolist() == [[1.0, 2.0, -0.5]]

    def test_a_factory_gets_the_pixels_as_they_are(self) -> None:
        classifier = build(FLATTEN, classes=12, channels=3)
        assert torch.equal(classifier(pixels(2, 3, 2, 2)), pixels(2, 12))

    def test_own_mean_std_and_size(self) -> None:
        config = ModelConfig(
            factory="torch.nn:Flatten", train=TrainConfig(), mean=HALF, std=(0.1, 0.2, 0.3), input_size=5
        )
        images = pixels(2, 3, 9, 9)
        resized = Resize(5, InterpolationMode.BICUBIC, antialias=True)(images)
        expected = Normalize(HALF, (0.1, 0.2, 0.3))(resized).flatten(1)
        torch.testing.assert_close(build(config, classes=75, channels=3)(images), expected)

    def test_own_settings_go_before_the_librarys(self) -> None:
        config = ModelConfig(timm="test_resnet", train=TrainConfig(), mean=HALF, std=(0.1, 0.2, 0.3), input_size=32)
        classifier = build(config, classes=10, channels=3)
        normalised = Normalize(HALF, (0.1, 0.2, 0.3))(pixels(2, 3, 32, 32))
        torch.testing.assert_close(classifier.eval()(pixels(2, 3, 32, 32)), classifier.net(normalised))

    def test_images_at_the_models_size_are_not_touched(self) -> None:
        classifier = Classifier(nn.Flatten(), (0.0,), (1.0,), input_size=4)
        assert torch.equal(classifier(pixels(1, 1, 4, 4)), pixels(1, 16))

    def test_gradients_reach_the_pixels_through_the_resizing(self) -> None:
        images = pixels(1, 1, 4, 4).requires_grad_()
        Classifier(nn.Flatten(), (0.0,), (0.5,), input_size=8)(images).sum().backward()
        assert images.grad is not None
        # Each of the 64 resized pixels is a weighted mean of the original ones, divided by std.
        assert images.grad.sum().item() == pytest.approx(2 * 64)

    def test_bf16_runs_the_network_in_bf16_and_returns_float32(self) -> None:
        torch.manual_seed(0)
        classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), HALF, HALF)
        full = classifier(pixels(8, 3, 4, 4))
        classifier.precision = "bf16"
        logits = classifier(pixels(8, 3, 4, 4))
        assert logits.dtype == torch.float32
        assert torch.equal(logits, logits.bfloat16().float())
        assert not torch.equal(logits, full)
        torch.testing.assert_close(logits, full, atol=0.02, rtol=0.02)

    def test_mean_and_std_are_not_weights(self) -> None:
        assert build(FLATTEN, classes=12, channels=3).state_dict() == {}


def test_ensemble_is_the_mean_of_the_logits() -> None:
    members = [Classifier(nn.Flatten(), (mean,), (1.0,)) for mean in (0.0, 0.25, 0.5)]
    assert Ensemble(members)(torch.ones(1, 1, 1, 2)).tolist() == [[0.75, 0.75]]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"weights": "w"}, "exactly one of"),
        ({"timm": "a", "torchvision": "b", "weights": "w"}, "timm and torchvision"),
        ({"timm": "a"}, "either `weights` or `train`"),
        ({"factory": "a:b", "weights": "none", "train": TrainConfig()}, "leave `weights: none` out"),
        ({"timm": "a", "train": TrainConfig(freeze=["x"])}, "train: freeze keeps random weights as they are: name the"),
        ({"timm": "a", "train": TrainConfig(batchnorm="frozen")}, "train: batchnorm: frozen keeps random weights"),
        ({"torchvision": "a", "train": TrainConfig(layer_decay=0.5)}, "train: layer_decay keeps random weights"),
        ({"aligned": "a", "train": TrainConfig()}, "an aligned model has its own weights"),
        ({"mlflow": "models:/a/1", "train": TrainConfig()}, "an aligned model has its own weights"),
        ({"aligned": "folder", "weights": "w"}, "own weights"),
        ({"aligned": "folder", "args": {"depth": 3}}, "own weights"),
        ({"factory": "module", "weights": "w"}, "module:callable"),
        ({"factory": "a:b:c", "weights": "w"}, "module:callable"),
        ({"timm": "a", "weights": "w", "mean": HALF}, "together"),
        ({"timm": "a", "weights": "w", "mean": HALF, "std": (0.5, 0.0, 0.5)}, "std must be above 0"),
    ],
)
def test_model_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ModelConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"weight_decay": -1.0},
        {"warmup": -1.0},
        {"layer_decay": 0.0},
        {"layer_decay": 1.5},
    ],
)
def test_training_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`train` needs"):
        TrainConfig(**settings)


def test_a_warmup_is_shorter_than_the_training() -> None:
    TrainConfig(epochs=6, warmup=5.5)
    with pytest.raises(ValueError, match="warmup: 7 epochs of warm-up, of 6 in all, leave the learning rate to rise"):
        TrainConfig(epochs=6, warmup=7)


@pytest.mark.parametrize(
    ("settings", "file"),
    [
        ({"timm": "a", "weights": "pretrained"}, None),
        ({"timm": "a", "weights": "w.pt"}, "w.pt"),
        ({"timm": "a", "train": TrainConfig()}, None),
        ({"torchvision": "a", "weights": "IMAGENET1K_V1"}, None),
        ({"torchvision": "a", "weights": "w/a.pth"}, "w/a.pth"),
        ({"factory": "a:b", "weights": "pretrained"}, "pretrained"),
        ({"aligned": "folder"}, "folder/model.safetensors"),
    ],
)
def test_where_the_weights_are(settings: dict[str, Any], file: str | None) -> None:
    assert ModelConfig(**settings).weights_file == (Path(file) if file else None)


def test_architecture_is_name_and_arguments() -> None:
    config = ModelConfig(timm="a", args={"depth": 3, "width": 4}, weights="w")
    same = ModelConfig(timm="a", args={"width": 4, "depth": 3}, train=TrainConfig(), family="f")
    deeper = ModelConfig(timm="a", args={"depth": 4, "width": 4}, weights="w")
    elsewhere = ModelConfig(torchvision="a", args={"depth": 3, "width": 4}, weights="w")
    assert config.architecture == same.architecture
    assert len({config.architecture, deeper.architecture, elsewhere.architecture}) == 3


def test_a_first_layer_that_timm_converts_is_said(tmp_path: Path) -> None:
    save_for_hf(timm.create_model("test_resnet", num_classes=3), str(tmp_path), model_config={"num_classes": 3})
    config = ModelConfig(timm=f"local-dir:{tmp_path}", weights="pretrained")
    said = "its weights are published for 3 channels, and timm converted its first layer to 1"
    assert build(config, classes=3, channels=1).changes == (said,)
    assert build(config, classes=3, channels=3).changes == ()
