"""Aligned models of MLflow's registry: fetched once, and kept beside what else was seen, where workers find them."""

from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from align_core.errors import InputError
from align_core.model_config import ModelConfig, config_of_card
from align_core.weights import State
from pipelines.experiment.config import Experiment
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Store, fingerprint_of
from pipelines.tracking.runs import registered_files, tracking_uri

REGISTERED = ("model.safetensors", "card.json")
"""The files of a registered model."""


@dataclass(frozen=True)
class Registered:
    """A registered model.

    Attributes:
        uri: its name in the registry. config: architecture and preprocessing.
        stored: where its weights lie in the store. unsaved: files that have still to be put there, by their place.
    """

    uri: str
    config: ModelConfig
    store: Store
    stored: str
    unsaved: dict[str, bytes]

    def weights(self) -> State:
        """The tensors. Raises InputError for what is no safetensors file."""
        content = self.unsaved[self.stored] if self.unsaved else self.store.read(self.stored)
        try:
            return dict(load_safetensors(content))
        except SafetensorError as problem:
            raise InputError(f"{self.uri}: its weights cannot be read as safetensors ({problem})") from problem


def registered(config: ModelConfig, experiment: Experiment, store: Store, folder: str) -> Registered:
    """The model `models:/NAME/VERSION`, from `folder` in the store or from MLflow. Raises InputError; writes nothing.

    A version never changes, so what was fetched once is not asked for again.
    """
    uri = str(config.mlflow)
    _, name, version = uri.split("/")
    place = f"{folder}/registered-{fingerprint_of([uri, without_credentials(tracking_uri(experiment))])}"
    weights_file, card_file = (f"{place}/{file}" for file in REGISTERED)
    unsaved: dict[str, bytes] = {}
    if not (store.exists(weights_file) and store.exists(card_file)):
        files = registered_files(experiment, name, version, REGISTERED)
        unsaved = {f"{place}/{file}": content for file, content in files.items()}
    card = unsaved[card_file] if unsaved else store.read(card_file)
    return Registered(uri, config_of_card(config, card, uri, weights_file), store, weights_file, unsaved)
