"""A finished experiment without a run: tiny networks, no training, and outcomes chosen by hand in a real store.

Outcomes are written as text, one digit per test image: how far the prediction lies from the label, 0 for right. Keys are
the store's folders, `clean/NAME` or `outcomes/SURROGATE/ATTACK/TARGET`; a table that is not named is right throughout.
"""

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

from align_core.weights import to_bytes
from pipelines.align import _commit
from pipelines.plan import Plan
from pipelines.run import Request, make_plan
from pipelines.table import ChunkedTable

CLASSES = 3
IMAGES = 12
CURVE = [
    {"step": step, "epoch": step // 2, "timestamp": 1_700_000_000.25 + 60 * step, "lr": 0.1 - 0.025 * step,
     "loss": 3.0 - 0.5 * step, "alignment_loss": 2.0 - 0.25 * step, "label_loss": 1.5, "grad_norm": 0.125 * (step + 1)}
    for step in range(4)
]  # fmt: skip

_FACTORY = """
from torch import nn

def linear(width=None):
    return nn.Sequential(nn.Flatten(), *([nn.Linear(64, width)] if width else []), nn.Linear(width or 64, 3))
"""


def _content(folder: Path) -> dict[str, Any]:
    def model(name: str, width: int | None, family: str | None = None) -> dict[str, Any]:
        args = {} if width is None else {"width": width}
        written = {"factory": "hand_made_networks:linear", "args": args, "weights": f"{name}.safetensors"}
        return written | ({} if family is None else {"family": family})

    return {
        "name": "by-hand",
        "output": str(folder / "out put"),  # a space: it must survive every URI
        "data": {
            "classes": CLASSES,
            "image_size": 8,
            "train": {"kind": "npz", "path": "images.npz", "take": [0, 4]},
            "test": {"kind": "npz", "path": "images.npz", "take": [4, 4 + IMAGES]},
        },
        "models": {
            "near": model("near", 2, "narrow"),
            "other": model("other", 4, "broad"),
            "seer": model("seer", 5, "broad"),
            "twin": model("twin", 2, "narrow"),
            "cousin": model("cousin", 3, "narrow"),
            "stranger": model("stranger", None),
        },
        "source": "near",
        "witnesses": ["seer"],
        "targets": ["twin", "cousin", "stranger"],
        "controls": ["witness"],
        "attacks": {
            "pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4},
            "mi": {"method": "mi", "eps": "4/255", "step": "1/255", "steps": 4},
        },
        "compute": {"chunk": 5},
    }


@dataclass(frozen=True)
class HandMade:
    """The experiment in one folder."""

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

    def plan(self) -> Plan:
        return make_plan(Request(self.file, quiet=True))

    def write(self, **changes: Any) -> None:
        """The experiment file, with `changes` of its sections."""
        self.file.write_text(yaml.safe_dump(_content(self.folder) | changes, sort_keys=False))

    def finish(self, outcomes: Mapping[str, str] | None = None, l2: float = 0.5) -> Plan:
        """Makes every network and fills every table; what was there under the same fingerprint is replaced."""
        plan = self.plan()
        for making in plan.alignments():
            network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Linear(2, CLASSES))
            if making.start == "other":
                network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, CLASSES))
            torch.manual_seed(int(making.fingerprint[:8], 16))
            state = {name: torch.rand_like(value) for name, value in network.state_dict().items()}
            _commit(plan.store, making, to_bytes(state), CURVE, seconds=1.0)
        plan.refresh()
        unused = dict(outcomes or {})
        for _, table in plan.clean().values():
            _fill(plan, table, {"prediction": _predictions(plan, unused.pop(table.folder, ""))})
        for cell in plan.cells():
            moved = unused.pop(cell.table.folder, "")
            _fill(plan, cell.table, {"adversarial_prediction": _predictions(plan, moved)})
        for surrogate in plan.surrogates:
            for attack in plan.experiment.attacks:
                distances = np.full(IMAGES, l2, np.float32)
                _fill(plan, plan.adversarial(surrogate, attack), {"l2": distances})
        assert not unused, f"no table of the experiment lies in {', '.join(unused)}"
        return plan


def hand_made(folder: Path, **changes: Any) -> HandMade:
    """Images, networks and the experiment file; `finish` does the rest."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 + IMAGES, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(4 + IMAGES) % CLASSES)
    (folder / "hand_made_networks.py").write_text(_FACTORY)
    for seed, (name, width) in enumerate(
        {"near": 2, "other": 4, "seer": 5, "twin": 2, "cousin": 3, "stranger": None}.items()
    ):
        torch.manual_seed(seed)
        layers = [nn.Linear(64, width)] if width else []
        network = nn.Sequential(nn.Flatten(), *layers, nn.Linear(width or 64, CLASSES))
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    experiment = HandMade(folder)
    experiment.write(**changes)
    return experiment


def _predictions(plan: Plan, moved: str) -> np.ndarray:
    labels = plan.inspected.manifests["test"].labels
    return (labels + np.array([int(digit) for digit in moved or "0" * len(labels)])) % CLASSES


def _fill(plan: Plan, table: ChunkedTable, columns: Mapping[str, np.ndarray]) -> None:
    manifest = plan.inspected.manifests["test"]
    for number, chunk in enumerate(plan.chunks):
        rows = slice(chunk.start, chunk.stop)
        values = {name: column[rows] for name, column in columns.items()}
        table.write_chunk(
            plan.store, number, pa.table({"image_id": manifest.ids[rows], "label": manifest.labels[rows], **values})
        )
    assert table.finish(plan.store, plan.rows) == []
