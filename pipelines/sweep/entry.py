"""The surrogate whose settings a sweep searches, and how settings are laid over those of its entry."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from align_core.align_config import AlignConfig
from align_core.errors import InputError
from align_core.losses import LOSSES
from align_core.refinements import laid_over
from align_core.refinements.parts import KINDS, TERMS
from pipelines.experiment.config import ALIGN_SETTINGS, Experiment
from pipelines.experiment.explain import explained, nearest
from pipelines.experiment.surrogates import Surrogate, budget_of, surrogates_of, within_budget
from pipelines.sweep.settings import WITNESSES, Settings, label_of

ALIGNED = "aligned"
"""The surrogate whose settings stand in the experiment's own `align`: a sweep searches them unless it names another."""

# Keys of `align` that hold several parts: settings of one of them are named with its name.
_SEVERAL = ("loss", "terms")


@dataclass(frozen=True)
class Entry:
    """A surrogate that is fine-tuned here, as its entry in the experiment describes it.

    Attributes:
        surrogate: with the settings of its entry, under names without a seed.
        budget: the passes through networks that every trial may take; None where settings decide how many there are.
        images: the number of training images.
        networks: the names of its own network and of those of its witnesses, by their names without a seed. Of several
            seeds, a sweep uses the first.
        others: the settings of the experiment's other surrogates that are fine-tuned here, by name.
    """

    surrogate: Surrogate
    budget: int | None
    images: int
    networks: Mapping[str, str]
    others: Mapping[str, AlignConfig] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the surrogate that is tuned, without a seed."""
        return self.surrogate.name

    @property
    def align(self) -> AlignConfig:
        """The settings of its entry."""
        assert self.surrogate.align is not None
        return self.surrogate.align

    @property
    def witnesses(self) -> tuple[str, ...]:
        """The names of its witnesses; none where it needs none."""
        return self.surrogate.witnesses

    def label(self, space: str) -> str:
        """The name of the sweep over a space: that of the space where `aligned` is tuned, else with the surrogate's.

        No space has a dot in its name, so that two sweeps never have one name.
        """
        return space if self.name == ALIGNED else f"{space}.{self.name}"

    @property
    def part_keys(self) -> list[str]:
        """The keys of the settings of its parts: of its losses and terms, and of what it updates, mixes and keeps."""
        return _part_keys(self.align)

    def lacks(self, key: str) -> str:
        """Why it has no setting of this name, and which surrogates of the experiment have one."""
        having = [f"--surrogate {name}" for name, align in self.others.items() if key in _part_keys(align)]
        mend = f", or a surrogate that has it: {' or '.join(having)}" if having else ""
        return f"{self._has_instead(key)}; choose a space that suits it{mend}"

    def _has_instead(self, key: str) -> str:
        kind = key.split(".")[1]
        if kind in self.align.idle:
            return f"{self.name} has no alignment loss, because its `weight` is 0"
        if kind in _SEVERAL:
            names = ", ".join(part["name"] for part in _parts(self.align, kind))
            return f"of {self.name}, `{kind}` is {names}" if names else f"{self.name} has no `{kind}`"
        part = getattr(self.align, kind)
        if isinstance(part, str):
            return f"of {self.name}, `{kind}` is {part}"
        return f"of {self.name}, `{kind}` is {part['name']}, which has {', '.join(_settings_of(part)) or 'none'}"


def entry_of(experiment: Experiment, name: str, images: int) -> Entry:
    """Finds the surrogate of this name in an experiment with so many training images.

    Raises InputError where there is none, or nothing is fine-tuned for it.
    """
    by_name = {own.name: own for own in surrogates_of(experiment.model_copy(update={"seeds": []}))}
    fine_tuned = [own.name for own in by_name.values() if own.align is not None]
    if name not in by_name:
        raise InputError(f"--surrogate: the experiment has no surrogate {name!r}{nearest(name, fine_tuned)}")
    own = by_name[name]
    if own.align is None:
        members = " and ".join(own.members)
        what = f"is the model {members} as it is" if len(own.members) == 1 else f"only puts {members} together"
        raise InputError(
            f"--surrogate {name}: it {what}, so that it has no settings to search; there are: {', '.join(fine_tuned)}"
        )

    def network(of: str) -> str:
        return f"{of}~{experiment.seed}" if experiment.seeds and of in fine_tuned else of

    networks = {own: network(own) for own in (name, *own.witnesses)}
    others = {other.name: other.align for other in by_name.values() if other.align is not None and other is not own}
    return Entry(own, budget_of(own, by_name, images), images, networks, others)


def settled(entry: Entry, settings: Settings) -> tuple[AlignConfig, tuple[str, ...]]:
    """Returns the `align` settings and the witnesses of a surrogate after `settings` are laid over those of its entry.

    Where it has a budget, `limit_steps` is as many steps as that allows with these settings. Raises InputError, naming
    the settings, where no surrogate can have them.
    """
    shown = ", ".join(f"{key} = {label_of(value)}" for key, value in settings.items())
    witnesses = tuple(settings.get(WITNESSES, entry.witnesses))
    try:
        own = laid_over(asdict(entry.align), written(entry.align, settings))
        align = ALIGN_SETTINGS.validate_python(own)
        tried = within_budget(replace(entry.surrogate, align=align, witnesses=witnesses), entry.budget, entry.images)
        assert tried.align is not None
        tried.align.check_images(entry.images)
    except ValidationError as problem:
        raise InputError(f"{shown}: {explained(problem, AlignConfig, within='align')}") from problem
    except InputError as problem:
        raise InputError(f"{shown}: {problem}") from problem
    if align.needs_witnesses and not witnesses:
        raise InputError(f"{shown}: {entry.name} has no witness, and needs one with these settings")
    weights = align.over_witnesses
    if align.needs_witnesses and not isinstance(weights, str) and len(weights) != len(witnesses):
        count = f"align.over_witnesses has {len(weights)} weights"
        raise InputError(f"{shown}: {count}, and there would be {len(witnesses)} witnesses")
    return tried.align, witnesses


def written(align: AlignConfig, settings: Settings) -> dict[str, Any]:
    """Settings below `align` as a file would write them over these.

    Of `loss` and `terms`, which hold several parts, a file has to write all.
    """
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        top, *path = key.split(".")
        if top != "align":
            continue
        section = nested
        if path[0] in _SEVERAL and len(path) > 1:
            parts = nested.setdefault(path[0], [dict(part) for part in _parts(align, path[0])])
            section, path = next(part for part in parts if part["name"] == path[1]), path[2:]
        for parent in path[:-1]:
            section = section.setdefault(parent, {})
        section[path[-1]] = value
    return nested


def known_part_keys() -> list[str]:
    """The keys of the settings of all parts and losses that there are, whatever surrogate has them."""
    keys = [
        f"align.{kind}.{own}" for kind, (_, parts) in KINDS.items() for part in parts.values() for own in part.settings
    ]
    keys += [f"align.terms.{name}.{own}" for name, part in TERMS.items() for own in part.settings]
    keys += [f"align.loss.{name}.{own}" for name, loss in LOSSES.items() for own in ("weight", *loss.settings)]
    return list(dict.fromkeys(keys))


def _part_keys(align: AlignConfig) -> list[str]:
    """The keys of the settings of the parts that settings name."""
    found = [f"align.{kind}.{own}" for kind in KINDS for own in _settings_of(getattr(align, kind))]
    for kind in _SEVERAL:
        parts = _parts(align, kind) if kind not in align.idle else []
        found += [f"align.{kind}.{part['name']}.{own}" for part in parts for own in part]
    return [key for key in found if not key.endswith(".name")]


def _parts(align: AlignConfig, kind: str) -> list[dict[str, Any]]:
    return align.losses if kind == "loss" else align.terms


def _settings_of(part: str | Mapping[str, Any]) -> Iterator[str]:
    return iter(()) if isinstance(part, str) else (own for own in part if own != "name")
