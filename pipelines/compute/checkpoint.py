"""A checkpoint of a fine-tune as files: its state and its curve, with a checksum over both.

The format of the state, safetensors, has no checksum of its own, so a bit that flips in a tensor on a disk would go on
in the network as if it had been trained that way.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, uint8

Curve = list[dict[str, float]]
"""A row per step: step, epoch, timestamp (seconds), lr and losses."""

STATE, CURVE = "state.safetensors", "curve.json"
"""The files of a checkpoint. The curve is written first, so that no state is without it."""
_CHECKSUM = "sha256"


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not what was written."""


def write_checkpoint(folder: Path, state: Mapping[str, Tensor], curve: Curve) -> None:
    """Writes the state, and the curve up to it, into a folder."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}  # tied ones, apart
    (folder / CURVE).write_text(json.dumps(curve))
    save_file(tensors, folder / STATE, {_CHECKSUM: _checksum(tensors, curve), "steps": str(len(curve))})


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], Curve]:
    """The state on the CPU, and the curve up to it.

    The curve in the file may go on beyond the state, where the process ended between the two, and is cut there. Raises
    DamagedCheckpoint where either of them is not what was written.
    """
    try:
        with safe_open(folder / STATE, framework="pt") as file:
            about = file.metadata() or {}
        state = load_file(folder / STATE, device="cpu")
        steps, curve = int(about["steps"]), json.loads((folder / CURVE).read_text())[: int(about["steps"])]
    except Exception as problem:  # a damaged file can raise almost any exception
        raise DamagedCheckpoint(f"cannot be read: {problem!r}") from problem
    if len(curve) != steps or _checksum(state, curve) != about.get(_CHECKSUM):
        raise DamagedCheckpoint("is not what was written: its checksum differs")
    return state, curve


def _checksum(state: Mapping[str, Tensor], curve: Curve) -> str:
    digest = hashlib.sha256(json.dumps(curve).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.flatten().view(uint8).numpy().data)
    return digest.hexdigest()
