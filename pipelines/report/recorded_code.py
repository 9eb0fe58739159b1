"""The code that is not Witness's own, of attacks and of factories, as the tables of a finished experiment record it.

results.json does not say which code made the images. The tables do, because it is part of their fingerprints.
"""

from collections.abc import Mapping
from typing import Any

from align_core.attacks.foreign_config import PACKAGES, is_foreign
from pipelines.storage.chunked_table import recorded_inputs
from pipelines.storage.store import Store


def recorded_code(store: Store, settings: Mapping[str, Any]) -> dict[str, str | None]:
    """Package and version, or modules and their hashes, of every attack and model whose code is not Witness's.

    Of images that were made elsewhere, it is their hash.

    They are named `attack NAME` and `model NAME`. The value is None where no table that would say it is in the store.

    Args:
        store: of the finished experiment.
        settings: its experiment file, with every setting that took effect.
    """
    made = [name for name, own in settings["attacks"].items() if "images" in own]
    attacks = [name for name, own in settings["attacks"].items() if is_foreign(own.get("method"))] + made
    models = [name for name, own in settings["models"].items() if {"factory", "wrap"} & own.keys()]
    crafted = store.listing("adversarial") if attacks else {}
    found = {}
    for name in attacks:
        kind = settings["attacks"][name].get("method", "").partition(":")[0]
        folders = [folder for folder in crafted if folder.endswith(f"/{name}")]
        inputs = [own for folder in folders if (own := recorded_inputs(store, folder, crafted[folder]))]
        found[f"attack {name}"] = _of_attack(kind, inputs[0].get("attack")) if inputs else None
    clean = store.listing("clean") if models else {}
    for name in models:
        own = recorded_inputs(store, f"clean/{name}", clean.get(f"clean/{name}", ()))
        found[f"model {name}"] = None if own is None else _of_networks(own.get("model"))
    return found


def _of_attack(kind: str, attack: Any) -> str | None:
    if not isinstance(attack, dict):
        return None
    if "made" in attack:
        return f"made elsewhere, {attack['made']}"
    return f"{PACKAGES[kind]} {attack.get('version')}" if kind in PACKAGES else _modules(attack.get("code"))


def _of_networks(identities: Any) -> str | None:
    """The code of one network, "" for a network of a library, as a defended one may be."""
    if not isinstance(identities, list) or not all(isinstance(own, dict) for own in identities):
        return None
    return "; ".join(_modules(own.get("code")) or "" for own in identities)


def _modules(code: Any) -> str | None:
    return ", ".join(f"{name} {digest}" for name, digest in code.items()) if isinstance(code, dict) else None
