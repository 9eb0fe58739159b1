"""Which surrogates an experiment has: the source, the aligned, the controls and the variants, each with its members."""

from dataclasses import dataclass, replace

from align_core.align_config import AlignConfig
from pipelines.experiment.config import Experiment


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """Whatever perturbations are crafted on: the mean of its members' logits.

    Attributes:
        name: as in the tables.
        members: networks by name: models of the experiment, or surrogates that are fine-tuned here.
        source: the original source model, to which its gains refer.
        baseline: the surrogate that crafts on that original source; itself for a source.
        witnesses: what it was aligned to.
        align: how it is fine-tuned here, where it is.
        is_aligned: whether it was aligned to witnesses, here or before.
    """

    name: str
    members: tuple[str, ...]
    source: str
    baseline: str
    witnesses: tuple[str, ...] = ()
    align: AlignConfig | None = None
    is_aligned: bool = False


def surrogates_of(experiment: Experiment) -> list[Surrogate]:
    """Every surrogate: first the source, then the aligned, the controls and the variants, in the order of the file."""
    source, witnesses, align = experiment.source, tuple(experiment.witnesses), experiment.align
    found = [
        _unaligned("source", (source,), source, "source"),
        Surrogate(
            name="aligned",
            members=("aligned",),
            source=source,
            baseline="source",
            witnesses=witnesses,
            align=align,
            is_aligned=True,
        ),
    ]
    for control in experiment.controls:
        if control == "label_only":
            settings = replace(align, weight=0.0, label_weight=1.0)
            found.append(Surrogate(name=control, members=(control,), source=source, baseline="source", align=settings))
        elif control == "witness":
            names = {w: "witness" if len(witnesses) == 1 else f"witness-{w}" for w in witnesses}
            found += [_unaligned(name, (witness,), source, "source") for witness, name in names.items()]
        else:
            first = source if control == "ensemble" else "aligned"
            found.append(_unaligned(control, (first, *witnesses), source, "source"))
    for name, variant in experiment.variants.items():
        own_source = variant.source or source
        baseline = "source" if own_source == source else f"source-{own_source}"
        if all(surrogate.name != baseline for surrogate in found):
            found.append(_unaligned(baseline, (own_source,), own_source, baseline))
        variant_of = Surrogate(name=name, members=(name,), source=own_source, baseline=baseline, is_aligned=True)
        if variant.model is not None:
            found.append(replace(variant_of, members=(variant.model,)))
        else:
            own = tuple(variant.witnesses or witnesses)
            found.append(replace(variant_of, witnesses=own, align=experiment.variant_align(name)))
    return found


def contrasts_of(surrogates: list[Surrogate]) -> list[tuple[str, str]]:
    """(surrogate, baseline) pairs for contrasts.csv: every aligned one against each control and the variants against
    the aligned, where they share the source; the aligned ensemble against the plain one.
    """
    names = {surrogate.name: surrogate for surrogate in surrogates}
    aligned = [s for s in surrogates if s.is_aligned]
    controls = [s for s in surrogates if s.name in ("label_only", "ensemble") or _is_witness(s)]
    pairs = [(s.name, control.name) for s in aligned for control in controls if s.source == control.source]
    pairs += [(s.name, "aligned") for s in aligned if s.name != "aligned" and s.source == names["aligned"].source]
    if "ensemble" in names and "aligned_ensemble" in names:
        pairs.append(("aligned_ensemble", "ensemble"))
    return pairs


def _unaligned(name: str, members: tuple[str, ...], source: str, baseline: str) -> Surrogate:
    return Surrogate(name=name, members=members, source=source, baseline=baseline)


def _is_witness(surrogate: Surrogate) -> bool:
    return surrogate.name == "witness" or surrogate.name.startswith("witness-")
