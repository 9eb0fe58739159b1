"""The surrogates of an experiment: the source, the aligned one, controls and variants, and the pairs to compare."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from align_core.align_config import AlignConfig
from align_core.errors import InputError
from align_core.model_config import Combine
from align_core.refinements.cost import Passes, networks_kept, passes_per_image
from pipelines.experiment.config import Experiment


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A network, or an ensemble of several, on which adversarial images are crafted.

    Attributes:
        name: its name in the tables.
        members: the names of its networks, which are models of the experiment or surrogates that are fine-tuned here.
            It predicts by the mean of their logits.
        source: the name of the original source model, to which its gains refer.
        baseline: the name of the surrogate that is this source by itself; a source is its own baseline.
        witnesses: the names of the networks that it is aligned to.
        align: the settings of its fine-tune; None if it is not fine-tuned here.
        is_aligned: whether it was aligned or refined in another way, here or in another experiment.
        refine: the name of the refinement that makes it; None where nothing is made, or it has none.
        budget: the name of the surrogate of whose passes it takes as many; None for its own number of epochs.
        combine: what attacks on its networks go by, where it has several.
        seed: of its fine-tune, and of the attacks on it.
    """

    name: str
    members: tuple[str, ...]
    source: str
    baseline: str
    witnesses: tuple[str, ...] = ()
    align: AlignConfig | None = None
    is_aligned: bool = False
    refine: str | None = None
    budget: str | None = None
    combine: Combine = "logits"
    seed: int = 0

    @property
    def series(self) -> str:
        """The name under which the tables have it: its own without its seed, where there are several."""
        return self.name.partition("~")[0]

    @property
    def seen_at_once(self) -> tuple[str, ...]:
        """The networks that one gradient goes through: of those that are seen in turn, the first stands for any."""
        return self.members[:1] if self.combine == "cycle" else self.members


def surrogates_of(experiment: Experiment) -> list[Surrogate]:
    """Returns every surrogate in the order of the tables: source, aligned, controls and variants as in the file.

    A variant with a source of its own is preceded by the surrogate `source-NAME`, unless an earlier one added it. Where
    the experiment has several seeds, each surrogate stands there once for every seed, as `NAME~SEED`.
    """
    source, witnesses, align = experiment.source, tuple(experiment.witnesses), experiment.align
    found = [
        _unaligned("source", (source,), source, "source"),
        Surrogate(
            name="aligned",
            members=("aligned",),
            source=source,
            baseline="source",
            witnesses=() if align.teacher == "source" else witnesses,
            align=align,
            is_aligned=True,
            refine="alignment",
        ),
    ]
    for control in experiment.controls:
        if control == "label_only":
            stop = align.early_stop if align.early_stop and align.early_stop.by == "gain" else None
            on_labels = replace(align, weight=0.0, label_weight=1.0, early_stop=stop)  # it has no witness to agree with
            made = Surrogate(name=control, members=(control,), source=source, baseline="source", align=on_labels)
            found.append(replace(made, refine=control))
        elif control == "witness":
            names = {w: "witness" if len(witnesses) == 1 else f"witness-{w}" for w in witnesses}
            found += [_unaligned(name, (witness,), source, "source") for witness, name in names.items()]
        else:
            first = source if control == "ensemble" else "aligned"
            found.append(_unaligned(control, (first, *witnesses), source, "source"))
    for name in experiment.variants:
        found += _variant(experiment, name, found)
    by_name = {surrogate.name: surrogate for surrogate in found}
    once = [replace(own, members=_members(own.name, by_name), seed=experiment.seed) for own in found]
    if not experiment.seeds:
        return once
    trained = {own.name for own in once if own.align is not None}
    return [_with_seed(own, seed, trained) for own in once for seed in experiment.seeds]


def _with_seed(surrogate: Surrogate, seed: int, trained: AbstractSet[str]) -> Surrogate:
    """A surrogate as it is made with one of several seeds, from others that are made with it."""

    def of_seed(name: str) -> str:
        return f"{name}~{seed}" if name in trained else name

    return replace(
        surrogate,
        name=f"{surrogate.name}~{seed}",
        members=tuple(map(of_seed, surrogate.members)),
        baseline=f"{surrogate.baseline}~{seed}",
        witnesses=tuple(map(of_seed, surrogate.witnesses)),
        budget=surrogate.budget and f"{surrogate.budget}~{seed}",
        seed=seed,
    )


def _members(name: str, by_name: Mapping[str, Surrogate]) -> tuple[str, ...]:
    """The networks of a surrogate, also where those that it names are surrogates of several."""
    own = by_name[name].members
    return tuple(
        network
        for member in own
        for network in (_members(member, by_name) if member in by_name and member != name else (member,))
    )


def _variant(experiment: Experiment, name: str, found: Sequence[Surrogate]) -> list[Surrogate]:
    """A variant, after the surrogate that is its source by itself, where the experiment has not found that yet."""
    variant = experiment.variants[name]
    source = variant.source or experiment.source
    baseline = "source" if source == experiment.source else f"source-{source}"
    known = any(surrogate.name == baseline for surrogate in found)
    own = [] if known else [_unaligned(baseline, (source,), source, baseline)]
    made = Surrogate(name=name, members=(name,), source=source, baseline=baseline, is_aligned=True)
    if variant.model is not None:
        return [*own, replace(made, members=(variant.model,))]
    if variant.ensemble is not None:
        combine = variant.combine or "logits"
        return [*own, replace(made, members=tuple(variant.ensemble), combine=combine, is_aligned=False)]
    align = experiment.variant_align(name)
    witnesses = tuple(variant.witnesses or experiment.witnesses) if align.needs_witnesses else ()
    return [
        *own,
        replace(
            made,
            witnesses=witnesses,
            align=align,
            refine=variant.refine or "alignment",
            budget=variant.budget,
            combine=variant.combine or "cycle",
        ),
    ]


def resolved(surrogates: Sequence[Surrogate], images: int) -> list[Surrogate]:
    """The surrogates with what depends on the number of training images: how many networks each has, and its steps.

    Of a surrogate that is given the budget of another, the steps are as many as their passes through networks allow.
    Raises InputError where that is no step, and for a witness that is several networks.
    """
    by_name = {surrogate.name: surrogate for surrogate in surrogates}
    networks: dict[str, tuple[str, ...]] = {}
    for own in surrogates:
        if own.align is not None:
            by_name[own.name] = own = replace(own, align=_within_budget(own, own.align, by_name, images))
            assert own.align is not None
            kept = networks_kept(own.align, images)
            networks[own.name] = (own.name, *(f"{own.name}#{number}" for number in range(1, kept)))
    found = []
    for own in by_name.values():
        several = next((name for name in own.witnesses if len(networks.get(name, ())) > 1), None)
        if several is not None:
            count = len(networks[several])
            key = f"variants.{own.series}.witnesses"
            raise InputError(f"{key}: {several} is {count} networks, and a witness is one; name one that is")
        members = tuple(name for member in own.members for name in networks.get(member, (member,)))
        found.append(replace(own, members=members))
    return found


def _within_budget(own: Surrogate, align: AlignConfig, by_name: Mapping[str, Surrogate], images: int) -> AlignConfig:
    other = by_name[own.budget] if own.budget else None
    if other is None or other.align is None:
        return align
    budget = passes_of(replace(other, align=_within_budget(other, other.align, by_name, images)), images).total
    rows = min(align.batch_size, images // align.workers * align.workers)
    steps = budget // (passes_per_image(align, len(own.witnesses)).total * rows)
    if steps < 1:
        raise InputError(f"variants.{own.series}.budget: that of {own.budget} is less than one step of {own.name}")
    return replace(align, limit_steps=steps)


def passes_of(surrogate: Surrogate, images: int, steps: int | None = None) -> Passes:
    """All passes of a fine-tune through its networks, over a training set of `images` images."""
    assert surrogate.align is not None
    return passes_per_image(surrogate.align, len(surrogate.witnesses)).times(images_seen_by(surrogate, images, steps))


def images_seen_by(surrogate: Surrogate, images: int, steps: int | None = None) -> int:
    """The training images of all steps of a fine-tune together, over a training set of `images` images.

    `steps` are those that it took; by default all.
    """
    align = surrogate.align
    assert align is not None
    return (steps or align.steps(images)) * min(align.batch_size, images // align.workers * align.workers)


def contrasts_of(surrogates: Sequence[Surrogate], further: Sequence[Sequence[str]] = ()) -> list[tuple[str, str]]:
    """Returns the pairs (surrogate, baseline) of contrasts.csv; `further` are those that the experiment asks for.

    Every aligned surrogate is compared with `label_only`, the witnesses and `ensemble`, and every variant with the
    surrogate `aligned`, if they have the same source. The aligned ensemble is compared with the plain one.
    """
    names = {surrogate.name: surrogate for surrogate in surrogates}
    aligned = [s for s in surrogates if s.is_aligned]
    controls = [s for s in surrogates if is_control(s.name)]
    pairs = [(s.name, control.name) for s in aligned for control in controls if s.source == control.source]
    pairs += [(s.name, "aligned") for s in aligned if s.name != "aligned" and s.source == names["aligned"].source]
    if "ensemble" in names and "aligned_ensemble" in names:
        pairs.append(("aligned_ensemble", "ensemble"))
    own = [(one, other) for one, other in further if {one, other} <= names.keys()]
    return list(dict.fromkeys([*pairs, *own]))


def _unaligned(name: str, members: tuple[str, ...], source: str, baseline: str) -> Surrogate:
    return Surrogate(name=name, members=members, source=source, baseline=baseline)


def is_control(name: str) -> bool:
    """Whether a surrogate of this name is a control that aligned and refined ones are compared with."""
    return name in ("label_only", "witness", "ensemble") or name.startswith("witness-")
