"""Networks that an experiment makes, trained on labels or aligned from a source, and what determines them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from align_core.align_config import AlignConfig, AugmentConfig, training_on_labels
from align_core.images.manifest import Manifest
from align_core.model_config import ModelConfig
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment
from pipelines.experiment.surrogates import Surrogate
from pipelines.stages.revisions import REVISIONS
from pipelines.storage.store import Store, fingerprint_of


@dataclass(frozen=True, kw_only=True)
class Making:
    """A network that is made here.

    Attributes:
        name: of the network.
        folder: where it lies in the store: model.safetensors, card.json, curves.csv.
        inputs: everything that determines it.
        start: the network whose weights it starts from; None for random weights, or those that its model names.
        witnesses: the networks it is aligned to.
        align: the settings; training on labels is an alignment without a witness.
        model: architecture and preprocessing.
        folded, channels_last: how it is used where it predicts, as in `Network`.
        networks: the names of all networks that it leaves, of which the first is its own.
        ancestors: hashes of the weights of what its source and its witnesses were made from, for its card.
    """

    name: str
    folder: str
    inputs: dict[str, Any]
    start: str | None
    witnesses: tuple[str, ...]
    align: AlignConfig
    model: ModelConfig
    folded: tuple[tuple[str, str], ...]
    channels_last: bool
    networks: tuple[str, ...]
    ancestors: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """The hash of `inputs`: it differs where another network would come out."""
        return fingerprint_of(self.inputs)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The names of the models in `inputs`, by the key of their list, for messages."""
        return {"witnesses": self.witnesses}

    @property
    def failed_file(self) -> str:
        """Path in the store of the note that says that it cannot be made with these settings, and why."""
        return f"{self.folder}/failed.json"

    @property
    def run_name(self) -> str:
        """Names the checkpoints of this fine-tune, so that changed settings can never continue an old one."""
        return f"{self.name}-{self.fingerprint}"

    @property
    def seed(self) -> int:
        """The seed of sample order, augmentation and random weights.

        The random weights of a model that is trained here depend on its name too, so that two models of one
        architecture are independent. The code of its factory does not change them: what a change of the code does is
        seen under the same random numbers.
        """
        if self.start:
            return int(self.inputs["seed"])
        inputs = {key: value for key, value in self.inputs.items() if key not in ("code", "frozen")}
        return int(fingerprint_of(inputs)[:8], 16)


def training(network: Network, experiment: Experiment, images: Manifest) -> Making:
    """The training of a model from random weights, or those it names, on the train images of this manifest."""
    name, model = network.name, network.config
    assert model.train is not None
    align = training_on_labels(model.train)
    inputs = _inputs(align, experiment, images) | {
        "architecture": model.architecture,
        "preprocessing": [model.mean, model.std, model.input_size],
        "independent": name,
    }
    if network.code is not None:
        inputs["code"] = dict(network.code)
    if network.begins is not None:
        inputs["begins"] = network.begins
    inputs |= _frozen(network)
    return Making(
        name=name,
        folder=f"trained/{name}",
        inputs=inputs,
        start=None,
        witnesses=(),
        align=align,
        model=model,
        folded=network.folded,
        channels_last=network.channels_last,
        networks=(name,),
        ancestors=network.ancestors,
    )


def alignment(
    surrogate: Surrogate,
    source: Network,
    witnesses: Sequence[Network],
    experiment: Experiment,
    images: Manifest,
    stopping: Mapping[str, Any],
) -> Making:
    """The fine-tune of a surrogate from its source, on the train images of this manifest.

    `stopping` is what decides its early stop, if it has one (`stopping.stopping_inputs`).
    """
    assert surrogate.align is not None
    inputs = _inputs(surrogate.align, experiment, images) | {
        "seed": surrogate.seed,
        "source": source.identity,
        "witnesses": [witness.identity for witness in witnesses],
        **_frozen(source),
        **stopping,
    }
    return Making(
        name=surrogate.name,
        folder=f"models/{surrogate.name}",
        inputs=inputs,
        start=surrogate.source,
        witnesses=surrogate.witnesses,
        align=surrogate.align,
        model=source.config,
        folded=source.folded,
        channels_last=source.channels_last,
        networks=surrogate.members,
        ancestors=_ancestors([source, *witnesses]),
    )


def _ancestors(networks: Sequence[Network]) -> tuple[str, ...]:
    """What networks were made from, each once, in an order that does not depend on theirs."""
    begun = {own.begins for own in networks if own.begins is not None}
    return tuple(sorted(begun.union(*(own.ancestors for own in networks))))


def weights_file(number: int) -> str:
    """The name of the file that holds the weights of a network; those after the first have a number."""
    return f"model-{number}.safetensors" if number else "model.safetensors"


def digests_of(card: Mapping[str, Any]) -> list[str]:
    """The hashes of the weights of all networks of a card; none of a damaged one."""
    digests = [card.get("weights"), *(card.get("more_weights") or ())]
    return digests if all(isinstance(own, str) for own in digests) else []


def images_seen(augment: AugmentConfig, experiment: Experiment, images: Manifest) -> str | list[str]:
    """What a training sees of its images: their pixels or, where it crops the original pictures, those."""
    if augment.needs_originals:
        return [images.digest_of_originals, experiment.data.interpolation]
    return images.digest


def _inputs(align: AlignConfig, experiment: Experiment, images: Manifest) -> dict[str, Any]:
    return {
        "stage": "align",
        "revision": REVISIONS["align"],
        "settings": align.deciding,
        "images": images_seen(align.augment, experiment, images),
        "classes": experiment.data.classes_count,
        "seed": experiment.seed,
        "precision": experiment.compute.precision,
    }


def _frozen(start: Network) -> dict[str, Any]:
    """What a training leaves as it is, where there is such: a network without it has the fingerprint it always had."""
    return {"frozen": list(start.frozen)} if start.frozen else {}


def write_failure(store: Store, making: Making, reason: str) -> None:
    """Notes in the store that a network cannot be made: the same settings would diverge again, at the same step."""
    store.write_json(making.failed_file, {"fingerprint": making.fingerprint, "reason": reason})


def read_failure(store: Store, making: Making) -> str | None:
    """Why a network cannot be made with these settings, and how to try again; None where nothing is known of it."""
    noted = store.read_json(making.failed_file)
    if not isinstance(noted, dict) or noted.get("fingerprint") != making.fingerprint:
        return None
    return (
        f"{noted.get('reason')}. The same settings would diverge again; change them, or delete "
        f"{making.failed_file} to try once more"
    )
