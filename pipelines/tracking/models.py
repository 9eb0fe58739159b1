"""Aligned models as MLflow models: `mlflow.pytorch.load_model` returns what `align_core.models.load` would.

The weights are in the safetensors file alone, which is all that Witness itself reads. MLflow opens its own file, which
by its rules is a pickle. It holds no weights, only a call: of the module below, which is stored beside the model and
loads it from its folder. So nothing is stored twice, and any number of images may be predicted at once.
"""

import io
import json
import operator
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import yaml

from pipelines.storage.versions import versions

_MODULE = '''"""Loads the aligned model in whose folder this is. MLflow puts this module on Python's path."""

from pathlib import Path


def load(classes, channels):
    """Returns the network with its preprocessing: it maps pixels [B, C, H, W] in [0, 1] to logits [B, K]."""
    from align_core.model_config import ModelConfig
    from align_core.models import load

    return load(ModelConfig(aligned=str(Path(__file__).parents[1])), classes, channels)
'''


def mlflow_model(
    card: bytes, weights: bytes, digest: str, shape: tuple[int, int, int], classes: int, code: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Returns the files of an MLflow model, by their paths in its folder.

    Args:
        card, weights: what an aligned model consists of in the output folder.
        digest: the hash of its weights, which gives its module a name that no other model has.
        shape: channels, height and width of the images.
        classes: their number.
        code: the modules of its factory, by their paths.
    """
    import torch

    module = f"witness_model_{digest.replace('-', '')[:16]}"
    opened = io.BytesIO()
    torch.save(_Loaded(module, classes, shape[0]), opened)
    described = {
        "flavors": {
            "pytorch": {"model_data": "data", "pytorch_version": str(torch.__version__), "code": "code"},
            "python_function": {
                "loader_module": "mlflow.pytorch",
                "data": "data",
                "code": "code",
                "python_version": versions()["python"],
            },
        },
        "signature": {"inputs": _tensors((-1, *shape)), "outputs": _tensors((-1, classes)), "params": None},
        "mlflow_version": versions()["mlflow"],
        "utc_time_created": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}",
        "model_uuid": uuid.uuid4().hex,
    }
    needed = [f"{name}=={versions()[name]}" for name in ("torch", "torchvision", "timm", "mlflow")]
    return {
        "MLmodel": yaml.safe_dump(described).encode(),
        "model.safetensors": weights,
        "card.json": card,
        "data/model.pth": opened.getvalue(),
        "data/pickle_module_info.txt": b"mlflow.pytorch.pickle_module",
        f"code/{module}.py": _MODULE.encode(),
        **{f"code/{path}": content for path, content in code.items()},
        "requirements.txt": "\n".join(["# Witness itself, from which the loader comes", *needed, ""]).encode(),
    }


def _tensors(shape: Sequence[int]) -> str:
    """A tensor of floats as MLflow's signatures have it; -1 is any number. With a name, it would have to be a table."""
    return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": list(shape)}}])


class _Module:
    """Pickled as the import of a module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.name,)


class _Loaded:
    """Pickled as a call of the function `load` of a module."""

    def __init__(self, module: str, classes: int, channels: int) -> None:
        self.module, self.classes, self.channels = module, classes, channels

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.methodcaller("load", self.classes, self.channels), (_Module(self.module),)
