"""Aligned models in MLflow's model registry: each is downloaded once and kept in the store, where workers find it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_core.errors import InputError
from align_core.model_config import ModelConfig, config_of_card
from pipelines.experiment.config import Experiment
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Store, fingerprint_of
from pipelines.tracking.runs import registered_files, tracking_uri

if TYPE_CHECKING:
    from align_core.weights import State

REGISTERED = ("model.safetensors", "card.json")
"""The files of a registered model: its weights, and the card that describes it."""


@dataclass(frozen=True)
class Registered:
    """A registered model.

    Attributes:
        uri: its name in the registry, `models:/NAME/VERSION`.
        config: its architecture, preprocessing and family.
        store: the store of the experiment that uses it.
        stored: the path of its weights in the store.
        unsaved: content of the files that were just downloaded, by their paths in the store. The caller writes them
            when it is allowed to write. Empty if the store has them already.
    """

    uri: str
    config: ModelConfig
    store: Store
    stored: str
    unsaved: dict[str, bytes]

    def card(self) -> bytes:
        """Returns the card that describes it."""
        path = f"{self.stored.rpartition('/')[0]}/{REGISTERED[1]}"
        return self.unsaved[path] if self.unsaved else self.store.read(path)

    def weights(self) -> "State":
        """Returns the weights as CPU tensors by name. Raises InputError if they are not a safetensors file."""
        from safetensors import SafetensorError
        from safetensors.torch import load as load_safetensors

        content = self.unsaved[self.stored] if self.unsaved else self.store.read(self.stored)
        try:
            return dict(load_safetensors(content))
        except SafetensorError as problem:
            kept = "" if self.unsaved else f"; delete {self.store.location}/{self.stored} to fetch them again"
            raise InputError(f"{self.uri}: its weights cannot be read as safetensors ({problem}){kept}") from problem


def registered(
    config: ModelConfig, experiment: Experiment, store: Store, folder: str, anew: bool = False
) -> Registered:
    """Finds the registered model that `config` names, in `folder` of the store or else in MLflow's registry.

    A version in the registry never changes, so one that is in the store is not looked up again, unless `anew` is set
    because the copy in the store is damaged. Writes nothing. Raises InputError if the model cannot be fetched, or was
    not registered by Witness.
    """
    uri = str(config.mlflow)
    _, name, version = uri.split("/")
    own_folder = f"{folder}/registered-{fingerprint_of([uri, without_credentials(tracking_uri(experiment))])}"
    weights_file, card_file = (f"{own_folder}/{file}" for file in REGISTERED)
    if not anew and store.exists(weights_file) and store.exists(card_file):
        try:
            found = config_of_card(config, store.read(card_file), uri, weights_file)
            return Registered(uri, found, store, weights_file, {})
        except InputError:  # the copy in the store is damaged; the registry has another
            pass
    files = registered_files(experiment, name, version, REGISTERED)
    unsaved = {f"{own_folder}/{file}": content for file, content in files.items()}
    return Registered(uri, config_of_card(config, unsaved[card_file], uri, weights_file), store, weights_file, unsaved)
