"""A finished experiment without a run: tiny networks, no training, and outcomes chosen by hand in a real store.

Outcomes are given as text with one digit per test image, by folder of the store. In `clean/NAME`, `corrupted/...` and
`outcomes/SURROGATE/ATTACK/TARGET` a digit is the predicted class minus the label, so that 0 is a correct prediction. In
`adversarial/SURROGATE/ATTACK` it is the l2 norm in eighths, and the structural similarity is 1 minus half of that. A
table that is not given holds zeros. A targeted attack leads every image to the class after its label.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from align_core.attacks import AttackConfig, ForeignConfig
from align_core.model_config import ModelConfig
from align_core.models import build
from align_core.weights import to_bytes
from pipelines.progress import Progress
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.align import commit
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.clean_images import test_images
from pipelines.stages.take_in import take_in_all
from pipelines.storage.chunked_table import ChunkedTable

CLASSES = 3
IMAGES = 12
CURVE = [
    {"step": step, "epoch": step // 2, "timestamp": 1_700_000_000.25 + 60 * step, "lr": 0.1 - 0.025 * step,
     "loss": 3.0 - 0.5 * step, "alignment_loss": 2.0 - 0.25 * step, "label_loss": 1.5, "grad_norm": 0.125 * (step + 1)}
    for step in range(4)
]  # fmt: skip

WIDTHS = {"near": 2, "other": 4, "seer": 5, "twin": 2, "cousin": 3, "stranger": 6}


@dataclass(frozen=True)
class HandMade:
    """The experiment: its file, inputs and output, all below one folder."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "experiment.yaml"

    @property
    def output(self) -> Path:
        return self.folder / "out put"

    @property
    def report(self) -> Path:
        return self.output / "by-hand" / "report"

    def content(self) -> dict[str, Any]:
        """The sections of the experiment file, unless a test changes them."""
        families = {
            "near": "narrow",
            "twin": "narrow",
            "cousin": "narrow",
            "other": "stranger",
        }  # the family of another model is its name
        models = {
            name: {"factory": "hand_made_networks:linear", "args": {"width": width}, "weights": f"{name}.safetensors"}
            | ({"family": families[name]} if name in families else {})
            | ({"mean": [0.0], "std": [1.0]} if name == "twin" else {})  # as most have; these change nothing
            for name, width in WIDTHS.items()
        }
        return {
            "name": "by-hand",
            "output": str(self.output),  # with a space in it, which has to survive in every URI
            "data": {
                "classes": CLASSES,
                "image_size": 8,
                "train": {"kind": "npz", "path": "images.npz", "take": [0, 4]},
                "test": {"kind": "npz", "path": "images.npz", "take": [4, 4 + IMAGES]},
            },
            "models": models,
            "source": "near",
            "witnesses": ["seer"],
            "targets": ["twin", "cousin", "stranger"],
            "controls": ["witness"],
            "attacks": {
                "pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4},
                "mi": {"method": "mi", "eps": "4/255", "step": "1/255", "steps": 4},
            },
            "compute": {"chunk": IMAGES},
        }

    def blueprint(self) -> Blueprint:
        return open_blueprint(Request(self.file, quiet=True))

    def write(self, **changes: Any) -> None:
        """Writes the experiment file, with some of its sections changed; None leaves a section out."""
        content = {key: value for key, value in (self.content() | changes).items() if value is not None}
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))

    def copied(self, folder: Path) -> "HandMade":
        """A copy, with all that was made, in a folder that is not there yet; its file has the sections of `content`."""
        shutil.copytree(self.folder, folder)
        copy = HandMade(folder)
        copy.write()
        return copy

    def finish(self, outcomes: Mapping[str, str] | None = None) -> Blueprint:
        """Makes every network and fills every table with the given outcomes; replaces what was there."""
        blueprint = self.blueprint()
        made: set[str] = set()
        while makings := [making for making in blueprint.alignments() if making.name not in made]:
            for making in makings:
                seeds = [making.fingerprint, *(f"{number:08x}" for number in range(1, len(making.networks)))]
                weights = [to_bytes(_weights(seed, making.model)) for seed in seeds]
                commit(blueprint.store, making, weights, CURVE, seconds=1.0, shape=(1, 8, 8))
                made.add(making.name)
            blueprint.refresh()  # now there are those that are aligned to these
        take_in_all(blueprint, Progress(quiet=True))
        unused = dict(outcomes or {})
        manifest, images = blueprint.inspected.manifests["test"], test_images(blueprint)
        clean = np.concatenate([images.read(chunk) for chunk in range(len(images.chunks))])

        def fill(table: ChunkedTable, column: str, attack: AttackConfig | ForeignConfig | None = None) -> None:
            digits = np.array([int(digit) for digit in unused.pop(table.folder, "0" * IMAGES)])
            columns = {"image_id": np.array(manifest.ids), "label": manifest.labels}
            if attack is not None and attack.is_targeted:
                columns["towards"] = (manifest.labels + 1) % CLASSES
            if column == "l2":
                columns |= {"l2": (digits / 8).astype(np.float32), "ssim": (1 - digits / 16).astype(np.float32)}
                if isinstance(attack, ForeignConfig):
                    columns["gradients"] = np.full(IMAGES, 10, np.float32)
                else:
                    columns["pass_rows"] = np.full(IMAGES, 100, np.int32)
                columns["image"] = _attacked(clean, digits)
            else:
                columns[column] = (manifest.labels + digits) % CLASSES
            blueprint.store.delete(table.finished_file)
            for number, chunk in enumerate(blueprint.chunks):
                rows = {name: _column(values[chunk.start : chunk.stop]) for name, values in columns.items()}
                table.write_chunk(blueprint.store, number, pa.table(rows))
            assert table.finish(blueprint.store, blueprint.rows) == []

        for _, table in (*blueprint.clean().values(), *blueprint.corrupted().values()):
            fill(table, "prediction")
        for cell in blueprint.cells():
            fill(cell.table, "adversarial_prediction")
        for surrogate in blueprint.surrogates:
            for attack, settings in blueprint.experiment.attacks.items():
                fill(blueprint.adversarial(surrogate, attack), "l2", settings)
        assert not unused, f"the experiment has no table in {', '.join(unused)}"
        blueprint.inspected.save(blueprint.store)  # as a run does, so that its models are not tried again
        return blueprint


def _attacked(clean_NCHW: np.ndarray, digits_N: np.ndarray) -> np.ndarray:
    """Adversarial images: the clean ones, every pixel moved by as many 8-bit steps as the image's digit says."""
    moved = clean_NCHW.astype(np.int16) + digits_N[:, None, None, None]
    return moved.clip(0, 255).astype(np.uint8)


def _column(values: np.ndarray) -> pa.Array:
    """Values as a column of a table: of images as tensors."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values)) if values.ndim > 1 else values


def _weights(seed: str, model: ModelConfig) -> dict[str, torch.Tensor]:
    """Random weights of the shapes that the model has."""
    torch.manual_seed(int(seed[:8], 16))
    return dict(build(model, CLASSES, channels=1).net.state_dict())


def hand_made(folder: Path, **changes: Any) -> HandMade:
    """Writes images, networks and the experiment file into `folder`; `HandMade.finish` makes the results."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 + IMAGES, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(4 + IMAGES) % CLASSES)
    shutil.copy(Path(__file__).with_name("hand_made_networks.py"), folder)
    for seed, (name, width) in enumerate(WIDTHS.items()):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, CLASSES))
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    experiment = HandMade(folder)
    experiment.write(**changes)
    return experiment
