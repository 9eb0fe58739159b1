"""Long work on a chunk shows that it goes on by the passes through the network that it works with."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from align_core.models import Classifier
from pipelines.compute.ray_data import WATCH


@contextmanager
def watched(network: nn.Module) -> Iterator[None]:
    """Every pass through the network, or through one of an ensemble, counts as progress of this worker."""
    parts = [part for part in network.modules() if isinstance(part, Classifier)]
    handles = [part.register_forward_pre_hook(lambda *_: WATCH.progress()) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
