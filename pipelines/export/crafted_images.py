"""Finished adversarial images of one surrogate and attack, in the chunks in which they were crafted."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from align_core.errors import InputError, reason_of
from pipelines.compute.images import adversarial_images
from pipelines.experiment.explain import nearest
from pipelines.experiment.surrogates import Surrogate, attacks_on, owners_of_made
from pipelines.export.exportable import Chunk, Exportable
from pipelines.failure import RunFailed
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store

_NAMED = 10  # missing tables that a message names


@dataclass(frozen=True)
class CraftedImages(Exportable):
    """The N adversarial images of one surrogate and attack, whose table is finished.

    Attributes:
        surrogate, attack: what they were crafted on, and by which attack.
        settings: what decides the attack's images.
        table, store: where they are.
    """

    surrogate: Surrogate
    attack: str
    settings: Mapping[str, Any]
    table: ChunkedTable
    store: Store

    @property
    def title(self) -> str:
        """The surrogate and the attack."""
        return f"{self.surrogate.name} under {self.attack}"

    @property
    def place(self) -> str:
        """The folder of the surrogate, and in it the attack."""
        return f"{self.surrogate.name}/{self.attack}"

    def about(self) -> dict[str, Any]:
        """What a manifest says of them. The fingerprint is that of their table."""
        own = self.surrogate
        return {
            "experiment": self.store.name,
            "surrogate": own.name,
            "source": own.source,
            "witnesses": list(own.witnesses),
            "seed": own.seed,
            "attack": self.attack,
            "eps": self.settings["eps"],
            "norm": self.settings["norm"],
            "settings": dict(self.settings),
            "fingerprint": self.table.fingerprint,
        }

    def read(self) -> Iterator[Chunk]:
        """The images chunk by chunk. Raises RunFailed where a chunk is damaged or not what it should be."""
        for number, rows in enumerate(self.chunks):
            ids = list(self.ids[rows.start : rows.stop])
            try:
                table = self.table.read_chunk(self.store, number, len(ids))
                found = table["image_id"].to_pylist()
                towards = np.asarray(table["towards"].to_numpy()) if self.is_targeted else None
                pixels_BCHW = adversarial_images(table)
            except (OSError, KeyError, pa.ArrowException) as problem:
                if isinstance(problem, OSError) and problem.errno is not None:
                    raise  # the disk or the store failed, not the file
                raise RunFailed(
                    f"{self.table.folder} is damaged ({reason_of(problem)}); delete this folder and run again"
                ) from problem
            if found != ids or pixels_BCHW.shape[1:] != self.shape:
                raise RunFailed(f"{self.table.folder} does not hold the test images; delete this folder and run again")
            yield Chunk(ids, self.labels_N[rows.start : rows.stop], towards, pixels_BCHW)

    def towards(self) -> npt.NDArray[np.int64] | None:
        """The classes that a targeted attack leads to, int64 [N]; None for any other attack."""
        found = [chunk.towards_B for chunk in self.read() if chunk.towards_B is not None] if self.is_targeted else []
        return np.concatenate(found).astype(np.int64) if found else None


def finished_images(blueprint: Blueprint, surrogates: Sequence[str], attacks: Sequence[str]) -> list[CraftedImages]:
    """The images of these surrogates and attacks, by name; of all that there are where no name is given.

    Of several seeds, the name of a surrogate without its seed stands for all of them. Raises InputError for a name that
    there is not, and RunFailed, naming what is missing, unless all of them are finished.
    """
    known, attacks_there = blueprint.by_name, blueprint.experiment.all_attacks
    of_series: dict[str, list[str]] = {}
    for own in known.values():
        of_series.setdefault(own.series, []).append(own.name)
    if not blueprint.experiment.matrix and (own_source := blueprint.experiment.source) in {*surrogates} - {*known}:
        raise InputError(f"--surrogate {own_source}: is the source; its images are those of the surrogate `source`")
    _check_names("surrogate", surrogates, {*known, *of_series})
    _check_names("attack", attacks, attacks_there)
    asked = [own for name in surrogates for own in of_series.get(name, [name])]
    names = dict.fromkeys(asked or [own.name for own in (*blueprint.surrogates, *blueprint.external)])
    pairs = [(name, attack) for name in names for attack in dict.fromkeys(attacks or attacks_there)]
    wanted = [(name, attack) for name, attack in pairs if attack in attacks_on(blueprint.experiment, known[name])]
    if not wanted:
        raise InputError(f"--surrogate, --attack: {owners_of_made(blueprint.experiment)}")
    _check_finished(blueprint, wanted)
    manifest, tables = blueprint.inspected.manifests["test"], blueprint.all_adversarial()
    return [
        CraftedImages(
            surrogate=known[name],
            attack=attack,
            settings=blueprint.attack_inputs(attack),
            table=tables[name, attack],
            store=blueprint.store,
            ids=manifest.ids,
            labels_N=manifest.labels,
            chunks=blueprint.chunks,
            shape=manifest.shape,
            class_names=manifest.class_names,
            is_targeted=attacks_there[attack].is_targeted,
        )
        for name, attack in wanted
    ]


def _check_names(kind: str, given: Sequence[str], there: Collection[str]) -> None:
    for name in given:
        if name not in there:
            raise InputError(f"--{kind} {name}: there is no {kind} of this name{nearest(name, there)}")


def _check_finished(blueprint: Blueprint, wanted: Sequence[tuple[str, str]]) -> None:
    """Raises RunFailed, naming what is missing, unless all of these images are finished."""
    tables, listing = blueprint.all_adversarial(), blueprint.store.listing("adversarial")
    missing = []
    for name, attack in wanted:
        members = blueprint.by_name[name].members
        is_made = (name, attack) in tables and all(map(blueprint.is_made, members))
        if not is_made or not tables[name, attack].is_finished(listing):
            missing.append(f"{name} under {attack}")
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise RunFailed(
            f"{len(missing)} of the {len(wanted)} sets of adversarial images are not finished: "
            f"{', '.join(missing[:_NAMED])}{more}. Nothing was exported; `witness craft` makes them, and --surrogate "
            "and --attack name others"
        )
