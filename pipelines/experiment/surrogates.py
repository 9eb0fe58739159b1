"""The surrogates of an experiment: the source, the aligned one, controls and variants, and the pairs to compare."""

from dataclasses import dataclass, replace

from align_core.align_config import AlignConfig
from pipelines.experiment.config import Experiment


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A network, or an ensemble of several, on which adversarial images are crafted.

    Attributes:
        name: its name in the tables.
        members: the names of its networks, which are models of the experiment or surrogates that are fine-tuned here.
            The surrogate's logits are the mean of theirs.
        source: the name of the original source model, to which its gains refer.
        baseline: the name of the surrogate that is this source by itself; a source is its own baseline.
        witnesses: the names of the models that it is aligned to.
        align: the settings of its fine-tune; None if it is not fine-tuned here.
        is_aligned: whether it was aligned to witnesses, here or in another experiment.
    """

    name: str
    members: tuple[str, ...]
    source: str
    baseline: str
    witnesses: tuple[str, ...] = ()
    align: AlignConfig | None = None
    is_aligned: bool = False


def surrogates_of(experiment: Experiment) -> list[Surrogate]:
    """Returns every surrogate in the order of the tables: source, aligned, controls and variants as in the file.

    A variant with a source of its own is preceded by the surrogate `source-NAME`, unless an earlier one added it.
    """
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
            on_labels = replace(align, weight=0.0, label_weight=1.0)
            found.append(Surrogate(name=control, members=(control,), source=source, baseline="source", align=on_labels))
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
    """Returns the pairs (surrogate, baseline) of contrasts.csv.

    Every aligned surrogate is compared with `label_only`, the witnesses and `ensemble`, and every variant with the
    surrogate `aligned`, if they have the same source. The aligned ensemble is compared with the plain one.
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
