"""Says which models resize the images of the experiment: small images that are made large look as nothing they know."""

from dataclasses import dataclass

from align_core.model_config import ModelConfig
from align_core.published import as_built
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.known import Known
from pipelines.stages.model_uses import uses_of
from pipelines.stages.seen import SEEN
from pipelines.storage.store import fingerprint_of

_FILE = f"{SEEN}/input-sizes.json"
_SIDES = {"img_size", "image_size"}  # arguments of networks that are built for one size


@dataclass(frozen=True)
class _InputSize:
    """Side in pixels to which a model resizes its input; None where it takes images at their size.

    `is_free` says whether nothing decides it but the library's habit: no weights, and no table of positions.
    """

    side: int | None
    is_free: bool = False

    def __post_init__(self) -> None:
        if type(self.side) not in (int, type(None)) or type(self.is_free) is not bool:
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
            is_free = config.train is not None and config.weights is None and not _SIDES & built.args.keys()
            return _InputSize(built.input_size, is_free)

        own = known.get(key, _InputSize, ask)
        if own.side not in (None, side):
            lines.append(_line(name, side, own))
    blueprint.inspected.unsaved |= known.unsaved()
    return lines


def _line(name: str, side: int, own: _InputSize) -> str:
    assert own.side is not None
    line = f"{side} px images are resized to {own.side} for {name}"
    if own.side < 2 * side:
        return line
    mend = f"; models.{name}.input_size: {side} trains it on them as they are" if own.is_free else ""
    return f"{line}, {(own.side / side) ** 2:,.0f} times as many pixels to compute with{mend}"
