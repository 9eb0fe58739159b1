"""A network that a worker can load, as data: where its weights lie, and what determines its predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align_core.defences import Wrap
from align_core.memory import Memory
from align_core.model_config import ModelConfig

HELD_BY_CRAFTERS = 4
"""Networks that a crafting worker holds at once, unless one surrogate has more: it goes from surrogate to surrogate."""


@dataclass(frozen=True)
class Network:
    """A network that a worker can load.

    Attributes:
        name: of a model of the experiment, or of a surrogate that is aligned here.
        config: architecture and preprocessing.
        digest: hash of the weights; None while they have still to be made.
        stored: path of the weights in the store; None where the configuration names them.
        code: hashes of the modules of its factory, by name; None where it comes from a library.
        channels_last: whether workers hold it in this layout, which is faster, and decides no more than rounding.
        folded: names of a convolution and of the BatchNorm that is folded into it where it predicts or is crafted on.
        frozen: names of the parameters that a training leaves as they are.
        wraps: the defences around it, the outermost first.
        begins: hash of the weights that its training starts from; None for random weights, and where none is trained.
        ancestors: hashes of the weights of all networks that it was made from, as far as cards say.
        memory: what it takes in memory; None where it is not known: earlier versions did not measure it.
    """

    name: str
    config: ModelConfig
    digest: str | None
    stored: str | None = None
    code: Mapping[str, str] | None = None
    channels_last: bool = True
    folded: tuple[tuple[str, str], ...] = ()
    frozen: tuple[str, ...] = ()
    wraps: tuple[Wrap, ...] = ()
    begins: str | None = None
    ancestors: tuple[str, ...] = ()
    memory: Memory | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines its predictions, for fingerprints: its weights, architecture, code, preprocessing, defences.

        Neither paths nor names are part of it. A model of a library has no code here: a library's version is recorded
        beside results, and does not determine them.
        """
        config = self.config
        code = {} if self.code is None else {"code": dict(self.code)}
        wraps = {"wraps": [_identity_of(wrap) for wrap in self.wraps]} if self.wraps else {}
        return {
            **code,
            **wraps,
            "weights": self.digest,
            "architecture": config.architecture,
            "preprocessing": [config.mean, config.std, config.input_size],
        }


def _identity_of(wrap: Wrap) -> list[Any]:
    return [wrap.name, dict(wrap.settings), *([] if wrap.seed is None else [wrap.seed])]


def same_tensors(one: str | None, other: str | None) -> bool:
    """Whether two hashes of `align_core.weights.hash_weights` are of the same tensors, whatever their names are."""
    return one is not None and other is not None and one.partition("-")[0] == other.partition("-")[0]
