"""A factory that returns a network with its weights. Workers find it here, on PYTHONPATH."""

from typing import Any

from safetensors.torch import load_file
from torch import nn

from pipelines.recipes.digit_models import cnn


def net(weights: str, **args: Any) -> nn.Module:
    """The network of `digit_models.cnn` with the weights of a file."""
    made = cnn(**args)
    made.load_state_dict(load_file(weights))
    return made
