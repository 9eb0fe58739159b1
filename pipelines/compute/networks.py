"""A network that a worker can load, as data: where its weights lie, and what determines its predictions."""

from dataclasses import dataclass
from typing import Any

from align_core.model_config import ModelConfig


@dataclass(frozen=True)
class Network:
    """A network that a worker can load.

    Attributes:
        name: of a model of the experiment, or of a surrogate that is aligned here.
        config: architecture and preprocessing.
        digest: hash of the weights; None while they have still to be made.
        stored: path of the weights in the store; None where the configuration names them.
    """

    name: str
    config: ModelConfig
    digest: str | None
    stored: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines its predictions, for fingerprints: weights, architecture, preprocessing; no path, no name."""
        config = self.config
        return {
            "weights": self.digest,
            "architecture": config.architecture,
            "preprocessing": [config.mean, config.std, config.input_size],
        }
