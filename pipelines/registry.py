"""Aligned models of MLflow's registry: fetched once, and kept beside what else was seen, where workers find them."""

from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from align_core.errors import InputError
from align_core.models import ModelConfig, config_of_card
from align_core.weights import State
from pipelines.config import Experiment
from pipelines.credentials import without_credentials
from pipelines.mlflow_runs import registered_files, tracking_uri
from pipelines.store import Store, fingerprint

REGISTERED = ("model.safetensors", "card.json")
"""The files of a registered model."""


@dataclass(frozen=True)
class Registered:
    """A registered model, read.

    Attributes:
        config: architecture and preprocessing. weights: the tensors.
        stored: where the weights lie in the store. unsaved: files that have still to be put there, by their place.
    """

    config: ModelConfig
    weights: State
    stored: str
    unsaved: dict[str, bytes]


def registered(config: ModelConfig, experiment: Experiment, store: Store, folder: str) -> Registered:
    """The model `models:/NAME/VERSION`, from `folder` in the store or from MLflow. Raises InputError; writes nothing.

    A version never changes, so what was fetched once is not asked for again.
    """
    uri = str(config.mlflow)
    _, name, version = uri.split("/")
    place = f"{folder}/registered-{fingerprint([uri, without_credentials(tracking_uri(experiment))])}"
    unsaved: dict[str, bytes] = {}
    if all(store.exists(f"{place}/{file}") for file in REGISTERED):
        files = {file: store.read(f"{place}/{file}") for file in REGISTERED}
    else:
        files = registered_files(experiment, name, version, REGISTERED)
        unsaved = {f"{place}/{file}": content for file, content in files.items()}
    weights_file, card = f"{place}/{REGISTERED[0]}", files[REGISTERED[1]]
    plain = config_of_card(config, card, uri, weights_file)
    try:
        weights = load_safetensors(files[REGISTERED[0]])
    except SafetensorError as problem:
        raise InputError(f"{uri}: its weights cannot be read as safetensors ({problem})") from problem
    return Registered(plain, weights, weights_file, unsaved)
