"""What an aligned model was made from, as its card says: the attacker knows these models too."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_core.errors import InputError
from align_core.model_config import ModelConfig
from pipelines.tracking.registry import Registered


@dataclass(frozen=True)
class Ancestors:
    """The hashes of the weights of its source and of its witnesses; none where its card does not say."""

    source: str | None = None
    witnesses: tuple[str, ...] = ()


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
        return Ancestors()
    if card.get("file", content) != content:
        raise InputError(
            f"{written.aligned or written.mlflow}: model.safetensors is not the file that card.json describes: was one "
            "of them replaced? Copy both from where the model was aligned"
        )
    inputs = card.get("inputs") or {}
    known = [_weights(model) for model in inputs.get("witnesses") or ()]
    return Ancestors(_weights(inputs.get("source")), tuple(own for own in known if own is not None))


def _json(content: bytes) -> dict[str, Any]:
    card = json.loads(content)
    return card if isinstance(card, dict) else {}


def _weights(model: Any) -> str | None:
    return model.get("weights") if isinstance(model, dict) else None
