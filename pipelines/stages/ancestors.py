"""What an aligned model was made from, as its card says: the attacker knows these models too."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_core.errors import InputError
from align_core.model_config import ModelConfig
from pipelines.storage.far import beside, fetched, is_far
from pipelines.tracking.registry import Registered


@dataclass(frozen=True)
class Ancestors:
    """The hashes of the weights of its source, of its witnesses, and of what these were made from in turn.

    There are none where its card does not say. The source of a model that was trained from weights is these weights.
    """

    source: str | None = None
    witnesses: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[str, ...]:
        """The hashes of all generations: the source, the witnesses, and what these were made from."""
        return ((self.source,) if self.source else ()) + self.witnesses + self.earlier


def ancestors(written: ModelConfig, found: Registered | None, content: str | None) -> Ancestors:
    """The ancestors of a model of the experiment.

    Args:
        written: the model as the experiment names it.
        found: what was found in MLflow's registry, for a model from there.
        content: the hash of the bytes of its weights file.

    Raises InputError where the weights are not those that the card of an aligned model describes.
    """
    if found is not None:
        card = _json(found.card())
    elif written.aligned is not None:
        card = _json((Path(written.aligned) / "card.json").read_bytes())
    else:
        card = _beside(written, content)
    if card.get("file", content) != content and (written.aligned or found is not None):
        raise InputError(
            f"{written.aligned or written.mlflow}: model.safetensors is not the file that card.json describes: was one "
            "of them replaced? Copy both from where the model was aligned"
        )
    inputs = card.get("inputs") or {}
    known = [_weights(model) for model in inputs.get("witnesses") or ()]
    source = _weights(inputs.get("source")) or inputs.get("begins")
    earlier = card.get("ancestors")
    return Ancestors(
        source,
        tuple(own for own in known if own is not None),
        tuple(own for own in earlier if isinstance(own, str)) if isinstance(earlier, list) else (),
    )


def _beside(written: ModelConfig, content: str | None) -> dict[str, Any]:
    """The card beside a file of weights that Witness made, where these are named by themselves; {} for any others."""
    try:
        if is_far(written.weights):
            file = fetched(beside(written.weights, "card.json"))
        elif written.weights_file is not None:
            file = written.weights_file.with_name("card.json")
        else:
            return {}
        card = _json(file.read_bytes())
    except (OSError, ValueError):  # of which InputError is one
        return {}
    more = card.get("more_files")
    return card if content in [card.get("file"), *(more if isinstance(more, list) else [])] else {}


def _json(content: bytes) -> dict[str, Any]:
    card = json.loads(content)
    return card if isinstance(card, dict) else {}


def _weights(model: Any) -> str | None:
    return model.get("weights") if isinstance(model, dict) else None
