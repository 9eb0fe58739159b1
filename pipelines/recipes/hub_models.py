"""Networks of RobustBench, transformers and open_clip with their published weights, for `factory:` and `weights: none`.

An experiment file names them from anywhere: `factory: "pipelines.recipes.hub_models:from_transformers"`. The libraries
are not installed with Witness, and have to be there on every node: `pip install transformers open_clip_torch`. What
the factories return takes pixels in [0, 1] at the network's own size; where images have another, give `input_size`.

RobustBench pins an older timm than Witness needs. Install it without its dependencies, and then what release 1.1.1
imports beside what Witness has, of which AutoAttack is not on PyPI, and pkg_resources is not in setuptools from 82 on:

    pip install --no-deps robustbench
    pip install geotorch torchdiffeq gdown 'setuptools<81' git+https://github.com/fra31/auto-attack
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PACKAGES = {"pkg_resources": "'setuptools<81'", "autoattack": "git+https://github.com/fra31/auto-attack"}
"""What to install for a module that a package of another name has."""


def from_robustbench(
    name: str, dataset: str = "cifar10", threat_model: str = "Linf", folder: str = "~/.cache/robustbench"
) -> nn.Module:
    """A network of RobustBench's model zoo, which normalises its images itself.

    Args:
        name: in the zoo, such as `Wong2020Fast`.
        dataset: `cifar10`, `cifar100` or `imagenet`.
        threat_model: `Linf`, `L2` or `corruptions`.
        folder: where its weights are, or are downloaded to.

    Raises ImportError where RobustBench is not installed.
    """
    library = _library("robustbench.utils", "--no-deps robustbench")
    net: nn.Module = library.load_model(name, str(Path(folder).expanduser()), dataset, threat_model)
    return net


def from_transformers(name: str, revision: str | None = None) -> nn.Module:
    """An image classifier of Hugging Face's hub, with the normalisation of its image processor.

    Args:
        name: on the hub, `USER/MODEL`, or a folder that `save_pretrained` wrote. Its labels must be in the order of the
            experiment's classes.
        revision: the commit, or else what the hub has as `main`. Without one, another day may bring other weights,
            which are found out and refused.

    Raises ImportError where transformers is not installed, and ValueError for pixels that are scaled in another way.
    """
    library = _library("transformers", "transformers")
    net = library.AutoModelForImageClassification.from_pretrained(name, revision=revision, use_safetensors=True)
    processor = library.AutoImageProcessor.from_pretrained(name, revision=revision)
    return Classifier(net, *normalisation_of(processor))


def from_open_clip(
    name: str, pretrained: str, classes: str | Sequence[str], prompt: str = "a photo of a {}."
) -> nn.Module:
    """A CLIP network as a classifier: its logits are the similarities of an image and of a prompt for each class.

    Args:
        name: of the architecture, such as `ViT-B-32`.
        pretrained: a tag of its weights, such as `laion2b_s34b_b79k`, or a file.
        classes: the words for the classes, in the order of the experiment's classes, or a file with one a line, which
            must be there on every node.
        prompt: what is said of an image, with `{}` in place of the class.

    Raises ImportError where open_clip is not installed, and ValueError where the prompt has no place for the class.
    """
    if "{}" not in prompt:
        raise ValueError(f"the prompt {prompt!r} has no {{}} in place of the class")
    library = _library("open_clip", "open_clip_torch")
    words = Path(classes).expanduser().read_text(encoding="utf-8").splitlines() if isinstance(classes, str) else classes
    net = library.create_model(name, pretrained=pretrained).eval()
    with torch.no_grad():
        texts_KD = F.normalize(net.encode_text(library.get_tokenizer(name)([prompt.format(word) for word in words])))
        weights_KD = net.logit_scale.exp() * texts_KD
    return Classifier(ZeroShot(net.visual, weights_KD), net.visual.image_mean, net.visual.image_std)


class Classifier(nn.Module):
    """A network that normalises pixels [B, C, H, W] in [0, 1], and returns logits [B, K].

    Args:
        net: takes normalised images, and returns logits or an object with the attribute `logits`.
        mean, std: per channel, in fractions of the pixel range.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean_C11", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std_C11", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K] of images [B, C, H, W] with pixels in [0, 1], normalised as the network was trained."""
        output = self.net((images_BCHW - self.mean_C11) / self.std_C11)
        logits_BK: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits_BK


class ZeroShot(nn.Module):
    """The image tower of a CLIP network below a linear layer that was made of texts.

    Args:
        tower: returns features [B, D].
        weights_KD: for each class the unit vector of its text, times the scale of the logits.
    """

    weights_KD: Tensor

    def __init__(self, tower: nn.Module, weights_KD: Tensor) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("weights_KD", weights_KD)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K] of normalised images [B, C, H, W]: cosines of features and texts, times the scale."""
        return F.normalize(self.tower(images_BCHW)) @ self.weights_KD.T


def normalisation_of(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and std of an image processor of transformers, of pixels in [0, 1]; 0 and 1 where it does not normalise.

    Raises ValueError where it scales pixels from 0 to 255 in another way than to [0, 1].
    """
    factor = getattr(processor, "rescale_factor", None) if getattr(processor, "do_rescale", True) else 1.0
    if factor is None or abs(255 * factor - 1) > 1e-3 or getattr(processor, "rescale_offset", False):
        raise ValueError(
            f"{type(processor).__name__} does not scale pixels to [0, 1] before it normalises them; write a factory of "
            "your own that does what it does"
        )
    if not getattr(processor, "do_normalize", True):
        return [0.0], [1.0]
    return list(processor.image_mean), list(processor.image_std)


def _library(module: str, package: str) -> Any:
    """A module that may not be installed, or needs another that is not; the message says how to install its package."""
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        missing = (problem.name or "").partition(".")[0]
        if isinstance(problem, ModuleNotFoundError) and missing != module.partition(".")[0]:
            raise ImportError(
                f"{module} cannot be imported: it imports {missing}, which is not installed; `pip install "
                f"{_PACKAGES.get(missing, missing)}`"
            ) from problem
        raise ImportError(
            f"{module} cannot be imported ({problem}); it needs `pip install {package}` and what the package imports"
        ) from problem
