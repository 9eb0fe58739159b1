"""The surrogates of an experiment: the source, the aligned one, controls and variants, and the pairs to compare."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from align_core.align_config import AlignConfig
from align_core.errors import InputError
from align_core.model_config import Combine
from align_core.refinements.cost import Passes, networks_kept, passes_per_image
from align_core.refinements.parts import NEED_TEACHER
from pipelines.experiment.config import Experiment
from pipelines.experiment.names import EXTERNAL, Control


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
        role: what it is to its source: `source`, `aligned` or a control; "" for a variant; `external` where its images
            were made elsewhere.
        known: the names of all models that it consists of or was made from, which are no targets of it.
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
    role: str = ""
    known: frozenset[str] = frozenset()

    @property
    def series(self) -> str:
        """The name under which the tables have it: its own without its seed, where there are several."""
        return series_of(self.name)

    def unseen(self, targets: Sequence[str]) -> list[str]:
        """Those of these targets on which its transfer is measured: the models that it does not know."""
        return [target for target in targets if target not in self.known]

    @property
    def seen_at_once(self) -> tuple[str, ...]:
        """The networks that one gradient goes through: of those that are seen in turn, the first stands for any."""
        return self.members[:1] if self.combine == "cycle" else self.members


def series_of(name: str) -> str:
    """The name of a surrogate without its seed, where there are several."""
    return name.partition("~")[0]


def surrogates_of(experiment: Experiment) -> list[Surrogate]:
    """Returns every surrogate in the order of the tables: source, aligned, controls and variants as in the file.

    In a matrix there is one of each for every model of it, as `source-NAME`, `aligned-NAME` and so on. A variant with a
    source of its own is preceded by the surrogate `source-NAME`, unless an earlier one added it. Where the experiment
    has several seeds, each surrogate stands there once for every seed, as `NAME~SEED`.
    """
    found = [_unaligned(experiment, "source", source, (source,)) for source in experiment.sources]
    if experiment.witnesses:
        found += [_aligned(experiment, source) for source in experiment.sources]
    for control in experiment.controls:
        found += _control(experiment, control)
    for name in experiment.variants:
        found += _variant(experiment, name, found)
    by_name = {surrogate.name: surrogate for surrogate in found}
    once = [
        replace(
            own,
            members=_members(own.name, by_name),
            seed=experiment.seed,
            known=_known(own.name, by_name) & experiment.models.keys(),
        )
        for own in found
    ]
    if not experiment.seeds:
        return once
    trained = {own.name for own in once if own.align is not None}
    return [_with_seed(own, seed, trained) for own in once for seed in experiment.seeds]


def external_of(experiment: Experiment) -> list[Surrogate]:
    """The surrogate to which images that were made elsewhere belong, where the experiment has any; once for each seed.

    No network of it is known. Its gains refer to the experiment's source. In a matrix there is one for every source
    that such images name; they are evaluated on its targets.
    """
    named = {own.source or experiment.source for own in experiment.made_elsewhere.values()}
    found = [
        replace(_unaligned(experiment, EXTERNAL, source, ()), seed=experiment.seed, known=frozenset({source}))
        for source in experiment.sources
        if source in named
    ]
    return [_with_seed(own, seed, frozenset()) for own in found for seed in experiment.seeds] or found


def attacks_on(experiment: Experiment, surrogate: Surrogate) -> list[str]:
    """The attacks of which a surrogate has images: those that are crafted here or, of an external one, its own."""
    if surrogate.role != EXTERNAL:
        return list(experiment.attacks)
    return [name for name, own in experiment.made_elsewhere.items() if own.source in (None, surrogate.source)]


def owners_of_made(experiment: Experiment) -> str:
    """Says to which surrogates the images made elsewhere belong, each with its attacks, for messages."""
    owners = {own.series: own for own in external_of(experiment)}
    named = " or ".join(f"{name} ({', '.join(attacks_on(experiment, own))})" for name, own in owners.items())
    return f"images that were made elsewhere, and no others, are of the surrogate {named}"


def _named(experiment: Experiment, role: str, source: str) -> str:
    """The name of a surrogate that every source has: its role alone, unless there are several sources."""
    return f"{role}-{source}" if experiment.matrix else role


def _unaligned(experiment: Experiment, role: str, source: str, members: tuple[str, ...]) -> Surrogate:
    name, baseline = (_named(experiment, own, source) for own in (role, "source"))
    return Surrogate(name=name, members=members, source=source, baseline=baseline, role=role)


def _aligned(experiment: Experiment, source: str) -> Surrogate:
    name, align = _named(experiment, "aligned", source), experiment.align
    witnesses = () if align.teacher == "source" else tuple(experiment.witnesses)
    made = replace(_unaligned(experiment, "aligned", source, (name,)), witnesses=witnesses, align=align)
    return replace(made, is_aligned=True, refine="alignment")


def _control(experiment: Experiment, control: Control) -> Iterator[Surrogate]:
    """A control of every source. A witness by itself stands there once: it is its own source where others are many."""
    witnesses = tuple(experiment.witnesses)
    if control == "witness":
        for witness in witnesses:
            name = "witness" if len(witnesses) == 1 else f"witness-{witness}"
            source, baseline = (witness, name) if experiment.matrix else (experiment.source, "source")
            yield Surrogate(name=name, members=(witness,), source=source, baseline=baseline, role=control)
        return
    for source in experiment.sources:
        if control == "label_only":
            stop = experiment.align.early_stop
            stop = stop if stop and stop.by == "gain" else None  # it has no witness to agree with
            terms = [own for own in experiment.align.terms if own["name"] not in NEED_TEACHER]
            on_labels = replace(experiment.align, weight=0.0, label_weight=1.0, early_stop=stop, terms=terms)
            made = _unaligned(experiment, control, source, (_named(experiment, control, source),))
            yield replace(made, align=on_labels, refine=control)
        else:
            first = source if control == "ensemble" else _named(experiment, "aligned", source)
            yield _unaligned(experiment, control, source, (first, *witnesses))


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


def _known(name: str, by_name: Mapping[str, Surrogate]) -> frozenset[str]:
    """The networks that a surrogate consists of or was made from, and what these were made from."""
    own = by_name[name]
    direct = {own.source, *own.members, *own.witnesses}
    return frozenset(direct).union(*(_known(other, by_name) for other in direct & by_name.keys() - {name}))


def _variant(experiment: Experiment, name: str, found: Sequence[Surrogate]) -> list[Surrogate]:
    """A variant, after the surrogate that is its source by itself, where the experiment has not found that yet."""
    variant = experiment.variants[name]
    source = variant.source or experiment.source
    baseline = f"source-{source}" if experiment.matrix or source != experiment.source else "source"
    alone = Surrogate(name=baseline, members=(source,), source=source, baseline=baseline, role="source")
    own = [] if any(surrogate.name == baseline for surrogate in found) else [alone]
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
    Raises InputError where that is no step, or a warm-up takes all, and for a witness that is several networks.
    """
    by_name = {surrogate.name: surrogate for surrogate in surrogates}
    networks: dict[str, tuple[str, ...]] = {}
    for own in surrogates:
        if own.align is not None:
            by_name[own.name] = own = within_budget(own, budget_of(own, by_name, images), images)
            assert own.align is not None
            _check_images(own, own.align, images)
            kept = networks_kept(own.align, images)
            networks[own.name] = (own.name, *(f"{own.name}#{number}" for number in range(1, kept)))
    found = []
    for own in by_name.values():
        several = next((name for name in own.witnesses if len(networks.get(name, ())) > 1), None)
        if several is not None:
            count = len(networks[several])
            key = f"variants.{own.series}.witnesses"
            raise InputError(f"{key}: {series_of(several)} is {count} networks, and a witness is one; name one that is")
        members = tuple(name for member in own.members for name in networks.get(member, (member,)))
        found.append(replace(own, members=members))
    return found


def _check_images(surrogate: Surrogate, align: AlignConfig, images: int) -> None:
    try:
        align.check_images(images)
    except InputError as problem:
        where = "align" if surrogate.role else f"variants.{surrogate.series}.align"
        raise InputError(f"{where}.{problem}") from problem


def budget_of(surrogate: Surrogate, by_name: Mapping[str, Surrogate], images: int) -> int | None:
    """The passes through networks that another surrogate's budget gives it; None for its own number of epochs."""
    other = by_name[surrogate.budget] if surrogate.budget else None
    if other is None or other.align is None:
        return None
    return passes_of(within_budget(other, budget_of(other, by_name, images), images), images).total


def within_budget(surrogate: Surrogate, budget: int | None, images: int) -> Surrogate:
    """The surrogate with as many steps as this number of passes through networks allows; as it is, without a budget.

    Raises InputError where that is no step.
    """
    align = surrogate.align
    if budget is None or align is None:
        return surrogate
    rows = min(align.batch_size, images // align.workers * align.workers)
    steps = budget // (passes_per_image(align, len(surrogate.witnesses)).total * rows)
    if steps < 1:
        key = f"variants.{surrogate.series}.budget"
        other = series_of(str(surrogate.budget))
        raise InputError(f"{key}: that of {other} is less than one step of {surrogate.series}")
    return replace(surrogate, align=replace(align, limit_steps=steps))


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
    surrogate `aligned`, if they have the same source; in a matrix, where a witness has no source but itself, with every
    witness. The aligned ensemble is compared with the plain one. Of several seeds, both surrogates of a pair have the
    same.
    """
    by_seed: dict[int, list[Surrogate]] = {}
    for surrogate in surrogates:
        by_seed.setdefault(surrogate.seed, []).append(surrogate)
    return [pair for own in by_seed.values() for pair in _contrasts_of_a_seed(own, further)]


def _contrasts_of_a_seed(surrogates: Sequence[Surrogate], further: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    names = {surrogate.series: surrogate.name for surrogate in surrogates}
    aligned = [s for s in surrogates if s.is_aligned]
    controls = [s for s in surrogates if is_control(s.role)]
    pairs = [
        (s.name, control.name)
        for s in aligned
        for control in controls
        if control.source == s.source or control.baseline == control.name
    ]
    ensembles = [s for s in surrogates if s.role == "aligned_ensemble"]
    for role, those in (("aligned", aligned), ("ensemble", ensembles)):
        others = {s.source: s.name for s in surrogates if s.role == role}
        pairs += [(s.name, others[s.source]) for s in those if s.source in others]
    pairs += [(names[one], names[other]) for one, other in further if {one, other} <= names.keys()]
    return [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]


def is_control(name: str) -> bool:
    """Whether a surrogate of this name is a control that aligned and refined ones are compared with."""
    return name in ("label_only", "witness", "ensemble") or name.startswith(("label_only-", "witness-", "ensemble-"))
