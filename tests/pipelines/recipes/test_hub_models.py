"""Networks of other libraries as factories: with stand-ins, and with the libraries where they are installed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.errors import InputError
from align_core.model_config import ModelConfig
from align_core.models import load
from pipelines.recipes import hub_models

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
IMAGES_BCHW = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MODULE = "pipelines.recipes.hub_models"


def normalised(images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    channels = [(images_BCHW[:, channel] - mean[channel]) / std[channel] for channel in range(3)]
    return torch.stack(channels, dim=1)


class Net(nn.Module):
    """A stand-in with the interface of an image classifier of transformers: an object with `logits`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=None, logits=self.linear(pixel_values.mean(dim=(2, 3))))


def test_the_logits_are_those_of_the_normalised_images_and_reach_the_pixels_with_a_gradient() -> None:
    net = Net()
    classifier = hub_models.Classifier(net, MEAN, STD)
    images_BCHW = IMAGES_BCHW.clone().requires_grad_()
    logits_BK = classifier(images_BCHW)
    assert torch.allclose(logits_BK, net(normalised(IMAGES_BCHW, MEAN, STD)).logits, atol=1e-6)
    logits_BK.sum().backward()
    expected_C = net.linear.weight.sum(dim=0) / 64 / torch.tensor(STD)
    assert images_BCHW.grad is not None
    assert torch.allclose(images_BCHW.grad, expected_C[:, None, None].expand(2, 3, 8, 8), atol=1e-6)


def test_a_network_that_returns_a_tensor_is_taken_as_it_is() -> None:
    classifier = hub_models.Classifier(nn.Flatten(), [0.0], [1.0])
    assert torch.equal(classifier(IMAGES_BCHW), IMAGES_BCHW.flatten(1))


def test_a_zero_shot_classifier_takes_cosines_with_the_texts() -> None:
    features_BD, texts_KD = torch.tensor([[3.0, 4.0], [0.0, -2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    logits_BK = hub_models.ZeroShot(nn.Identity(), 100 * texts_KD)(features_BD)
    assert torch.allclose(logits_BK, torch.tensor([[60.0, 80.0, 100.0], [0.0, -100.0, -80.0]]))


def processor(**changes: Any) -> SimpleNamespace:
    usual = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
    return SimpleNamespace(**{**usual, **changes})


def test_the_normalisation_is_that_of_the_image_processor() -> None:
    assert hub_models.normalisation_of(processor()) == (MEAN, STD)
    assert hub_models.normalisation_of(processor(do_normalize=False)) == ([0.0], [1.0])


@pytest.mark.parametrize("changes", [{"rescale_factor": 1 / 127.5}, {"do_rescale": False}, {"rescale_offset": True}])
def test_other_scales_of_pixels_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"SimpleNamespace does not scale pixels to \[0, 1\]"):
        hub_models.normalisation_of(processor(**changes))


@pytest.mark.parametrize(
    ("factory", "args", "module", "package"),
    [
        ("from_robustbench", {"name": "Wong2020Fast"}, "robustbench.utils", "--no-deps robustbench"),
        ("from_transformers", {"name": "google/vit-base-patch16-224"}, "transformers", "transformers"),
        (
            "from_open_clip",
            {"name": "RN50", "pretrained": "openai", "classes": ["cat"]},
            "open_clip",
            "open_clip_torch",
        ),
    ],
)
def test_a_library_that_is_missing_gets_one_message_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, factory: str, args: dict[str, Any], module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    config = ModelConfig(factory=f"{MODULE}:{factory}", args=args, weights="none")
    with pytest.raises(InputError, match=rf"{module} cannot be imported .*; it needs `pip install {package}` and"):
        load(config, classes=1, channels=3)


@pytest.mark.parametrize(("missing", "package"), [("pkg_resources", "'setuptools<81'"), ("geotorch.so", "geotorch")])
def test_what_an_installed_library_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, package: str
) -> None:
    (tmp_path / "robustbench").mkdir()
    (tmp_path / "robustbench" / "__init__.py").write_text("")
    (tmp_path / "robustbench" / "utils.py").write_text(f"import {missing}")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("robustbench", "robustbench.utils"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, missing.partition(".")[0], None)
    config = ModelConfig(factory=f"{MODULE}:from_robustbench", args={"name": "Wong2020Fast"}, weights="none")
    own = missing.partition(".")[0]
    with pytest.raises(InputError) as refusal:
        load(config, classes=1, channels=3)
    said = f"robustbench.utils cannot be imported: it imports {own}, which is not installed; `pip install {package}`"
    assert said in str(refusal.value)
    for module in ("robustbench", "robustbench.utils"):
        sys.modules.pop(module, None)


def test_a_prompt_without_a_place_for_the_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no \{\} in place of the class"):
        hub_models.from_open_clip("RN50", "openai", ["cat"], prompt="a photo")


class TestWithTheLibraries:
    """Networks that are made here, saved as the libraries do, and loaded without a network. Skipped without them."""

    def test_transformers(self, tmp_path: Path) -> None:
        library = pytest.importorskip("transformers")
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        settings = library.ViTConfig(**shape, image_size=8, patch_size=4, num_labels=5)
        net = library.ViTForImageClassification(settings).eval()
        net.save_pretrained(tmp_path)
        library.ViTImageProcessor(image_mean=MEAN, image_std=STD, size={"height": 8, "width": 8}).save_pretrained(
            tmp_path
        )
        config = ModelConfig(factory=f"{MODULE}:from_transformers", args={"name": str(tmp_path)}, weights="none")
        logits_BK = load(config, classes=5, channels=3)(IMAGES_BCHW)
        assert torch.allclose(logits_BK, net(pixel_values=normalised(IMAGES_BCHW, MEAN, STD)).logits, atol=1e-5)

    def test_robustbench(self, tmp_path: Path) -> None:
        zoo = pytest.importorskip("robustbench.model_zoo.cifar10")
        net = zoo.linf["Wong2020Fast"]["model"]()
        file = tmp_path / "cifar10/Linf/Wong2020Fast.pt"
        file.parent.mkdir(parents=True)
        torch.save(net.state_dict(), file)
        args = {"name": "Wong2020Fast", "folder": str(tmp_path)}
        config = ModelConfig(factory=f"{MODULE}:from_robustbench", args=args, weights="none")
        images_BCHW = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(load(config, classes=10, channels=3)(images_BCHW), net.eval()(images_BCHW), atol=1e-5)

    def test_open_clip(self, tmp_path: Path) -> None:
        library = pytest.importorskip("open_clip")
        (tmp_path / "tiny-clip.json").write_text(
            '{"embed_dim": 8, "vision_cfg": {"image_size": 8, "layers": 1, "width": 64, "patch_size": 4},'
            ' "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}}'
        )
        library.add_model_config(tmp_path / "tiny-clip.json")
        torch.manual_seed(0)
        net = library.create_model("tiny-clip", load_weights=False).eval()
        torch.save(net.state_dict(), tmp_path / "clip.pt")
        (tmp_path / "words.txt").write_text("tench\nostrich\nsnowmobile\n")
        args = {"name": "tiny-clip", "pretrained": str(tmp_path / "clip.pt"), "classes": str(tmp_path / "words.txt")}
        config = ModelConfig(factory=f"{MODULE}:from_open_clip", args=args, weights="none")
        found_BK = load(config, classes=3, channels=3)(IMAGES_BCHW)
        prompts = [f"a photo of a {word}." for word in ("tench", "ostrich", "snowmobile")]
        with torch.no_grad():
            shown_BCHW = normalised(
                IMAGES_BCHW, *(list(part) for part in (net.visual.image_mean, net.visual.image_std))
            )
            images_BD = F.normalize(net.encode_image(shown_BCHW))
            texts_KD = F.normalize(net.encode_text(library.get_tokenizer("tiny-clip")(prompts)))
            expected_BK = net.logit_scale.exp() * images_BD @ texts_KD.T
        assert torch.allclose(found_BK, expected_BK, atol=1e-4)
