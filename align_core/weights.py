"""Weights files: read without unpickling, hashed by content, and written as safetensors.

A pickle can run any code when it is loaded, and weights files often come from strangers. Files of `torch.save` are
therefore loaded with `weights_only=True`, which rebuilds tensors and plain containers alone.
"""

import codecs
import hashlib
import pickle
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from align_core.errors import InputError, reason_of

State = dict[str, Tensor]
_NESTED_UNDER = ("state_dict", "model", "model_state_dict", "net")


def read_weights(path: Path) -> State:
    """Reads the tensors of a safetensors file, or of a file that `torch.save` wrote, whatever it is called.

    No code in the file is run.
    Weights nested under `state_dict`, `model`, `model_state_dict` or `net` are found, and the prefix `module.`, which
    DataParallel adds, is removed. Raises InputError where the file is missing, truncated, or anything but a state_dict,
    and where it holds several, since nothing says which is meant.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the weights file in it")
    if not path.is_file():
        raise InputError(f"{path}: there is no such weights file")
    try:
        if _is_safetensors(path):
            content = load_file(path)
        else:
            with open(path, "rb") as file:  # of a path, torch.load looks at the suffix first
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:  # a damaged file can raise almost any exception
        raise InputError(f"{path}: {_why_unreadable(path, problem)}") from problem
    return _tensors(content, path)


def _why_unreadable(path: Path, problem: Exception) -> str:
    """What to say of a file of which no weights can be read, and how to get them."""
    with suppress(OSError), open(path, "rb") as file:
        start = file.read(100).removeprefix(codecs.BOM_UTF8).lstrip().lower()
        if start.startswith(b"version https://git-lfs"):
            return "is a Git LFS pointer, and not what it points to: fetch that with `git lfs pull`"
        if start.startswith((b"<!doctype html", b"<html")):
            return "is a web page, and not the file that was to be downloaded: fetch that again"
    if isinstance(problem, pickle.UnpicklingError):
        return (
            "contains more than tensors, or is not a weights file. Witness never unpickles, so no code in it was run. "
            "Save the model's state_dict() alone, preferably as safetensors"
        )
    if "TorchScript" in str(problem):  # whose message advises to unpickle it
        return "is a TorchScript archive, which holds code; save the model's state_dict() instead"
    return f"cannot be read as weights; is it truncated? ({reason_of(problem)})"


def _is_safetensors(path: Path) -> bool:
    """Whether a file is of safetensors: by what it holds where that is plain, or else by its suffix.

    The format begins with the length of a JSON object, and then has this object; files of torch are zip archives, or
    begin with a pickle.
    """
    with open(path, "rb") as file:
        start = file.read(16)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return True
    return path.suffix.lower() == ".safetensors" and not start.startswith((b"PK", b"\x80"))


def _tensors(content: object, path: Path) -> State:
    """The state_dict within the content of a weights file. Raises InputError where there is none."""
    _check_single(content, path)
    for key in _NESTED_UNDER:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            _check_single(content, path, f"[{key!r}]")
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: contains a {type(content).__name__}, not a state_dict")
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state or len(state) < len(content):
        others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
        reason = f"these entries are not tensors: {', '.join(others[:5])}" if others else "it is empty"
        inner = next((str(name) for name, value in content.items() if _is_state(value)), None)
        mend = "" if inner is None else f". Under {inner!r} there is one: save that alone"
        raise InputError(f"{path}: not a state_dict of tensors ({reason}){mend}")
    for name, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            kind = "quantised" if value.is_quantized else "on the meta device" if value.is_meta else str(value.layout)
            raise InputError(f"{path}: {name} is no plain tensor but {kind}; save dense tensors of floating-point type")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _check_single(content: object, path: Path, within: str = "") -> None:
    """Raises InputError where several entries are state_dicts, such as weights and their moving average.

    Args:
        content: of the file, or of an entry.
        path: of the file.
        within: how Python code gets from the file's content to this one.
    """
    entries = content.items() if isinstance(content, Mapping) else ()
    found = [str(name) for name, value in entries if _is_state(value)]
    if len(found) > 1:
        raise InputError(
            f"{path}: holds several sets of weights, {', '.join(found)}. Save the one that is meant by itself, say "
            f"`torch.save(torch.load({path.name!r}, 'cpu', weights_only=True){within}[{found[-1]!r}], 'weights.pt')`"
        )


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(own, Tensor) for own in value.values())


def load_into(net: nn.Module, state: State, origin: str) -> None:
    """Loads all of `state` into all of `net`.

    Args:
        net: the network, changed in place.
        state: tensors by name.
        origin: where the weights came from, for the error message.

    Floating-point numbers may be of another precision. Raises InputError that lists missing keys, unexpected keys, and
    keys of another shape or type, such as the integers of a quantised network; `net` is then unchanged.
    """
    own = net.state_dict()
    if own and all(name.startswith("module.") for name in own) and not own.keys() & state.keys():
        state = {f"module.{name}": value for name, value in state.items()}  # `read_weights` took DataParallel's for it
    # Files written before PyTorch 0.4.1 lack BatchNorm's batch counters, which no prediction depends on.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {tuple(value.shape)}, the model's {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    types = [
        f"{name} is {_dtype(value)}, the model's {_dtype(own[name])}"
        for name, value in state.items()
        if name in own and not name.endswith("num_batches_tracked") and not _can_be(value, own[name])
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    problems += [("of another type", types)]
    said = [f"{what}: {', '.join(names[:6])}{_more(names[6:])}" for what, names in problems if names]
    if said:
        mend = _mend_of_names(own, state)
        raise InputError(f"{origin}: these weights do not fit the model; keys {'; '.join(said)}{mend}")
    net.load_state_dict(state, strict=False)


def _mend_of_names(own: State, state: State) -> str:
    """Says which prefix the keys of a file have too many or lack, where without it they would be those of the model."""
    if not own or not state or own.keys() & state.keys():
        return ""
    if prefix := _prefix(state, own):
        return f". Take {prefix!r} from the beginning of its keys, and save it anew"
    if prefix := _prefix(own, state):
        return f". Put {prefix!r} at the beginning of its keys, and save it anew"
    return ""


def _prefix(longer: State, shorter: State) -> str:
    """What has to be put before most keys of `shorter` to make keys of `longer`, such as `model.`; "" for nothing."""
    first = next(iter(shorter))
    found = sorted(name.removesuffix(first) for name in longer if name.endswith(f".{first}"))
    return next((own for own in found if 2 * sum(f"{own}{name}" in longer for name in shorter) > len(shorter)), "")


def not_finite(state: Mapping[str, Tensor], parameters: Container[str] | None = None) -> list[str]:
    """The names of the tensors that hold values which are not finite, and must.

    These are parameters and the statistics of BatchNorm. In any other buffer NaN is an error, but infinity is not: a
    mask of an attention layer may hold it.

    Args:
        state: tensors by name.
        parameters: which of them are parameters; None for all.
    """
    found = []
    for name, value in state.items():
        if not (value.is_floating_point() or value.is_complex()):
            continue
        must = parameters is None or name in parameters or name.endswith(("running_mean", "running_var"))
        if not (value.isfinite() if must else ~value.isnan()).all():
            found.append(name)
    return found


def _can_be(value: Tensor, own: Tensor) -> bool:
    """Whether a stored tensor has numbers of the kind that the model has: otherwise a part of them would be lost."""
    if own.is_floating_point() or own.is_complex():
        return value.is_floating_point() == own.is_floating_point() and value.is_complex() == own.is_complex()
    return not (value.is_floating_point() or value.is_complex())


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _more(names: list[str]) -> str:
    return f" and {len(names)} more" if names else ""


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the contents of all tensors, then a hyphen and a hash of which name has which tensor.

    The first part knows no names and no order, so that weights are recognised under the names of another library. The
    second tells apart two files in which tensors of one shape have changed places. BatchNorm's batch counters are left
    out, because they change no prediction.
    """
    digests = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        header = f"{value.dtype}{tuple(value.shape)}".encode()
        content = value.detach().cpu().flatten().view(torch.uint8).numpy()
        digests[name] = hashlib.sha256(header + hashlib.sha256(content.data).digest()).digest()
    places = "".join(f"{name}\0{digest.hex()}\n" for name, digest in sorted(digests.items()))
    contents = hashlib.sha256(b"".join(sorted(digests.values()))).hexdigest()
    return f"{contents}-{hashlib.sha256(places.encode()).hexdigest()[:16]}"


def hash_state(net: nn.Module) -> str:
    """The hash of a network's weights: of all its parameters and buffers, also those that no weights file holds."""
    state = dict(net.state_dict())
    for name, buffer in net.named_buffers(remove_duplicate=False):
        state.setdefault(name, buffer)
    return hash_weights(state)


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """The state as the content of a .safetensors file.

    Tied weights share memory, which the format refuses: they are written once under each of their names.
    """
    return save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()})
