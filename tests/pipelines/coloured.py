"""An experiment on ten colours: a class is a colour, so that networks without training classify nearly all images."""

import shutil
from pathlib import Path
from typing import Any

import colour_nets
import numpy as np
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import nn

SIZE = 16
CLASSES = tuple(["apple", "blood", "cherry", "dahlia", "ember", "fern", "grass", "holly", "iris", "jade"])


def write_images(folder: Path, each: int, seed: int, size: int = SIZE) -> None:
    """`each` PNG files per class: its colour, a little changed, with noise."""
    rng = np.random.default_rng(seed)
    for colour, name in zip(colour_nets.COLOURS.numpy() * 255, CLASSES, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = colour + rng.normal(0, 8, 3) + rng.normal(0, 20, (size, size, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:03d}.png")


def weights_of(module: nn.Module, file: Path) -> str:
    """Saves a network's weights, tied ones under each of their names; returns the file's name."""
    save_file({name: value.detach().clone() for name, value in module.state_dict().items()}, file)
    return file.name


def write_coloured(folder: Path, kinds: dict[str, str] | None = None, **changes: Any) -> Path:
    """Writes images, networks and the experiment file into `folder`; returns the file's path.

    Args:
        kinds: of the networks net_a (source), net_b (witness) and net_c (target), where they are not Plain.
        changes: sections of the file that are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder / "train", each=8, seed=1)
    write_images(folder / "test", each=4, seed=2)
    shutil.copy(colour_nets.__file__, folder)
    models = {}
    for scale, name in ((15.0, "net_a"), (20.0, "net_b"), (25.0, "net_c")):
        kind = (kinds or {}).get(name, "Plain")
        network = getattr(colour_nets, "Plain" if kind == "exits" else kind)(scale)
        models[name] = {
            "factory": f"colour_nets:{kind}",
            "weights": weights_of(network, folder / f"{name}.safetensors"),
        }
    content = {
        "name": "coloured",
        "output": str(folder / "out"),
        "data": {
            "classes": 10,
            "image_size": SIZE,
            "train": {"kind": "folder", "path": "train"},
            "test": {"kind": "folder", "path": "test"},
        },
        "models": models,
        "source": "net_a",
        "witnesses": ["net_b"],
        "targets": ["net_c"],
        "controls": [],
        "align": {"epochs": 1, "batch_size": 40, "optimizer": {"lr": 1e-3}},
        "attacks": {"fgsm": {"method": "fgsm", "eps": "32/255"}},
        "compute": {"workers": 1},
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return file
