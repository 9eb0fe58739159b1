"""Says which models resize the images of the experiment: small images that are made large look as nothing they know."""

from dataclasses import dataclass

from align_core.model_config import ModelConfig
from align_core.published import as_built
from pipelines.experiment.config import Experiment
from pipelines.experiment.wraps import unwrapped
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.known import Known
from pipelines.stages.model_uses import uses_of
from pipelines.stages.seen import SEEN
from pipelines.storage.store import fingerprint_of

_FILE = f"{SEEN}/input-sizes.json"
_SIDES = {"img_size", "image_size"}  # arguments of networks that are built for one size
_OF_ONE_SIZE = ("vit_", "maxvit_")  # those of torchvision, which may be built for their size without such an argument


@dataclass(frozen=True)
class _InputSize:
    """Side in pixels to which a model resizes its input; None where it takes images at their size.

    `takes_others` says whether the network can be given another size: it is not built with a table of positions.
    """

    side: int | None
    takes_others: bool

    def __post_init__(self) -> None:
        if type(self.side) not in (int, type(None)) or type(self.takes_others) is not bool:
            raise TypeError("not a side in pixels")


def resizings(blueprint: Blueprint) -> list[str]:
    """A line for each model with a role that resizes images, with what that costs, and how it is avoided.

    What was found out about models is added to `blueprint.inspected.unsaved`: asking timm takes seconds.
    """
    side, classes = blueprint.experiment.data.image_size, blueprint.experiment.data.classes_count
    known, lines = Known(blueprint.store, _FILE), []
    uses = uses_of(blueprint.experiment, len(blueprint.inspected.manifests["train"]))
    for name in (name for name, use in uses.items() if use.has_role):
        config = blueprint.networks[name].config
        key = fingerprint_of(
            [config.architecture, config.weights if config.torchvision else None, config.input_size, bool(config.train)]
        )

        def ask(config: ModelConfig = config) -> _InputSize:
            built = as_built(config, classes, blueprint.inspected.shape[0])
            is_of_one_size = bool(_SIDES & built.args.keys()) or (config.torchvision or "").startswith(_OF_ONE_SIZE)
            return _InputSize(built.input_size, not is_of_one_size)

        own = known.get(key, _InputSize, ask)
        if own.side not in (None, side):
            mend = _mend(blueprint.experiment, name, side) if own.takes_others else ""
            lines.append(_line(name, side, own.side, mend))
    blueprint.inspected.unsaved |= known.unsaved()
    return lines


def _line(name: str, side: int, own: int, mend: str) -> str:
    line = f"{side} px images are resized to {own} for {name}"
    if own < 2 * side:
        return line
    return f"{line}, {(own / side) ** 2:,.0f} times as many pixels to compute with{mend}"


def _mend(experiment: Experiment, name: str, side: int) -> str:
    """How to avoid it, where nothing decides the size but the library's habit, or else the end of no sentence."""
    inner = unwrapped(experiment.models, name).name
    written = experiment.models[inner]
    key = f"models.{inner}.input_size: {side}"
    if written.train is not None:
        return f"; {key} trains it on them as they are" if written.weights is None else ""
    is_told = written.aligned is not None or written.mlflow is not None or written.input_size is not None
    if is_told or written.weights_file is None:
        return ""
    return f"; if its weights were trained at {side} px, write {key}, or its accuracy suffers"
