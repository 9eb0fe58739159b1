"""Files of weights: read without unpickling, hashed by content, written as safetensors."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from align_core.errors import InputError, reason_of

State = dict[str, Tensor]
_NESTED_UNDER = ("state_dict", "model", "model_state_dict", "net")


def read_weights(path: Path) -> State:
    """The tensors of a .safetensors file, or of any file of `torch.save` (`weights_only=True`: no code runs).

    Weights nested under `state_dict` or `model` are found; a `module.` prefix, which DataParallel leaves, is taken off.
    Raises InputError where the file is missing, truncated, holds more than tensors, or holds none.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of weights")
    try:
        is_safetensors = path.suffix == ".safetensors"
        content = load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise InputError(
            f"{path}: holds more than tensors, or is no file of weights; Witness never unpickles: nothing of it was "
            "run. Save the model's state_dict() alone, best as safetensors"
        ) from problem
    except Exception as problem:  # a damaged file raises whatever its bytes lead to
        raise InputError(f"{path}: cannot be read as weights; is it truncated? ({reason_of(problem)})") from problem
    return _tensors(content, path)


def _tensors(content: object, path: Path) -> State:
    for key in _NESTED_UNDER:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a state_dict")
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state or len(state) < len(content):
        others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
        raise InputError(f"{path}: not a state_dict of tensors (no tensor: {', '.join(others[:5]) or 'it is empty'})")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def load_into(net: nn.Module, state: State, origin: str) -> None:
    """Loads `state` strictly. Raises InputError with the names of missing, unexpected and misshapen keys."""
    own = net.state_dict()
    # Files older than PyTorch 0.4 have no batch counters; torch itself fills them in.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {tuple(value.shape)}, the model's {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    said = [f"{what}: {', '.join(names[:6])}{_more(names[6:])}" for what, names in problems if names]
    if said:
        raise InputError(f"{origin}: these weights do not fit the model; keys {'; '.join(said)}")
    net.load_state_dict(state, strict=False)


def _more(names: list[str]) -> str:
    return f" and {len(names)} more" if names else ""


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors' contents, whatever they are called: equal weights have equal hashes.

    Batch counters do not count: they change no prediction.
    """
    digests = []
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        header = f"{value.dtype}{tuple(value.shape)}".encode()
        content = value.detach().cpu().flatten().view(torch.uint8).numpy()
        digests.append(hashlib.sha256(header + hashlib.sha256(content.data).digest()).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """The state as the content of a .safetensors file. Tied weights, which the format refuses, are written twice."""
    return save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()})
