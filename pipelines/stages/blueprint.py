"""What an experiment consists of: networks to be made and tables to be filled, each with what determines it.

From this and one listing of the store it follows what is there, what is missing and what is stale. Nothing here needs
torch or Ray, so `witness status` and `witness plan` answer at once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

from align_core.corruptions.known import Corruption
from align_core.images import chunked
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment
from pipelines.experiment.corruptions import each_corruption
from pipelines.experiment.surrogates import Surrogate, attacks_on, external_of, resolved, surrogates_of
from pipelines.experiment.wraps import unwrapped
from pipelines.failure import RunFailed
from pipelines.stages.cells import SELF, Cell, Predictions, TablesOverImages
from pipelines.stages.evaluations import Evaluation
from pipelines.stages.inspect import Inspected
from pipelines.stages.makings import Making, alignment, digests_of, read_failure, training, weights_file
from pipelines.stages.measurings import Measuring, Sample, measurings_of, sample_of
from pipelines.stages.stopping import needed_for_checks, stopping_inputs
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store

STAGES = ("align", "craft", "evaluate", "reasons", "report")
"""The stages of a run, in their order."""


class Blueprint:
    """The whole experiment, as its settings, inputs and store determine it.

    Args:
        experiment: checked.
        inspected: what its image sets and models turned out to be.
        store: its folder.

    `networks` holds every model of the experiment and every surrogate that is made here; one that has still to be made
    has no digest. `refresh` takes up networks that were made since.

    Attributes:
        planned: every surrogate that the experiment asks for, to craft on.
        external: that to which images made elsewhere belong, where there are any; once for each seed.
        damaged: networks that were made here and are not what their cards say: they count as missing.
        lost: networks that cannot be made, and why: their training diverged, or that of one that they start from.
        broken: tables that cannot be finished, by folder, and why. `check_finished` finds them.

    `surrogates`, `targets` and all tables leave out what is lost or broken: the rest is made, and `holes` says what is
    not there. Only `evaluations` keeps broken predictions, because what there is of them waits for the next run.
    """

    def __init__(self, experiment: Experiment, inspected: Inspected, store: Store) -> None:
        self.experiment, self.inspected, self.store = experiment, inspected, store
        self.planned = resolved(surrogates_of(experiment), len(inspected.manifests["train"]))
        self.external = external_of(experiment)
        self.lost: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.networks: dict[str, Network] = dict(inspected.networks)
        self.damaged: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Looks in the store for networks that were made here and are what the settings ask for."""
        before, self.lost = (dict(self.networks), self.lost), {}
        for surrogate in self._in_order:  # also those whose source has still to be trained
            for number, name in enumerate(surrogate.members if surrogate.align is not None else ()):
                stored = f"models/{surrogate.name}/{weights_file(number)}"
                self.networks[name] = replace(self.networks[surrogate.source], name=name, digest=None, stored=stored)
        for making in chain(self.trainings(), self.alignments()):  # lazily, as alignments start from trained models
            card = self.store.read_json(f"{making.folder}/card.json") or {}
            digests = digests_of(card)
            fits = card.get("fingerprint") == making.fingerprint and len(digests) == len(making.networks)
            fits &= making.name not in self.damaged
            start = self.networks[making.start or making.name]
            for number, name in enumerate(making.networks):
                stored, digest = f"{making.folder}/{weights_file(number)}", digests[number] if fits else None
                self.networks[name] = replace(start, name=name, digest=digest, stored=stored)
            if not fits and (reason := read_failure(self.store, making)):
                self.lost[making.name] = reason
        self._refresh_defended()
        for surrogate in self._in_order:
            gone = [name for name in self._needed_by(surrogate) if name in self.lost]
            if surrogate.align is not None and gone:
                self.lost.setdefault(surrogate.name, f"it needs {gone[0]}, which could not be made")
        if (self.networks, self.lost) != before:  # otherwise the tables stay, of which there may be thousands
            self._forget_tables()

    def _refresh_defended(self) -> None:
        """A defended model is there, or lost, with the model within it."""
        models = self.experiment.models
        for name in (name for name, config in models.items() if config.wrap is not None):
            within = unwrapped(models, name).name
            inner, outer = self.networks[within], self.networks[name]
            self.networks[name] = replace(outer, digest=inner.digest, stored=inner.stored)
            if within in self.lost:
                self.lost[name] = f"it is {within} with a defence, which could not be made"

    def _forget_tables(self) -> None:
        for found in ("_clean", "_corrupted", "_adversarial", "_cells", "evaluations", "measurings"):
            self.__dict__.pop(found, None)

    def hash_weights(self) -> None:
        """Hashes the weights of every network that was made here; one that is not as its card says is missing."""
        for making in chain(self.trainings(), self.alignments()):
            card = self.store.read_json(f"{making.folder}/card.json") or {}
            try:
                found = [
                    self.store.sha256(f"{making.folder}/{weights_file(number)}")
                    for number in range(len(making.networks))
                ]
            except FileNotFoundError:
                found = []
            # A card of an older version of Witness has no hash of the file; `witness verify` hashes its tensors.
            noted = [card["file"], *card.get("more_files", ())] if "file" in card else found or [""]
            if self.is_made(making.name) and found != noted:
                self.damaged.add(making.name)
        if self.damaged:
            self.refresh()

    @cached_property
    def _in_order(self) -> list[Surrogate]:
        """The planned surrogates, those that others are aligned to before these."""

        def depth(surrogate: Surrogate) -> int:
            return 1 + max((depth(self.by_name[own]) for own in surrogate.witnesses if own in self.by_name), default=0)

        return sorted(self.planned, key=depth)

    def _needed_by(self, surrogate: Surrogate) -> tuple[str, ...]:
        """The networks without which a surrogate cannot be made."""
        checks = needed_for_checks(self.experiment, surrogate.align)
        within = [unwrapped(self.experiment.models, name).name for name in checks]
        return (surrogate.source, *surrogate.witnesses, *within)

    @property
    def surrogates(self) -> list[Surrogate]:
        """The surrogates that are there or can be made."""
        return [own for own in self.planned if not self.lost.keys() & {own.source, *own.members}]

    @property
    def targets(self) -> list[str]:
        """The targets that are there or can be made."""
        return [target for target in self.experiment.targets if target not in self.lost]

    @cached_property
    def by_name(self) -> dict[str, Surrogate]:
        """The surrogates that the experiment asks for, by name, with the external one."""
        return {surrogate.name: surrogate for surrogate in (*self.planned, *self.external)}

    def holes(self) -> list[str]:
        """What of the experiment is not there and will not be, a line each with the reason."""
        folders = {name: "trained" if name in self.experiment.models else "models" for name in self.lost}
        networks = {f"{folders[name]}/{name}": why for name, why in self.lost.items()}
        return [f"{folder}: {why}" for folder, why in {**networks, **self.broken}.items()]

    @cached_property
    def chunks(self) -> list[range]:
        """Positions of the test images in each chunk."""
        return chunked(self.inspected.manifests["test"].ids, self.experiment.compute.chunk)

    @cached_property
    def rows(self) -> list[int]:
        """Number of images in each chunk."""
        return [len(chunk) for chunk in self.chunks]

    @cached_property
    def trained_for_run(self) -> list[str]:
        """The models that are trained here and that a run needs.

        Validation targets are trained for sweeps only, and for surrogates that stop early by gain.
        """
        needed = {unwrapped(self.experiment.models, name).name for name in self.experiment.targets}
        for surrogate in self.planned:
            needed |= {*surrogate.members, *self._needed_by(surrogate)}
        return [name for name, config in self.experiment.models.items() if config.train and name in needed]

    def is_made(self, name: str) -> bool:
        """Whether a network's weights are there."""
        return self.networks[name].digest is not None

    def trainings(self) -> Iterator[Making]:
        """The models that are trained here."""
        images = self.inspected.manifests["train"]
        for name, config in self.experiment.models.items():
            if config.train is not None:
                yield training(self.networks[name], self.experiment, images)

    def alignments(self) -> Iterator[Making]:
        """The surrogates that are aligned here and whose source and witnesses are there."""
        images = self.inspected.manifests["train"]
        for surrogate in self._in_order:
            if surrogate.align is not None and all(map(self.is_made, self._needed_by(surrogate))):
                witnesses = [self.networks[name] for name in surrogate.witnesses]
                source = self.networks[surrogate.source]
                stopping = stopping_inputs(self, surrogate.align)
                yield alignment(surrogate, source, witnesses, self.experiment, images, stopping)

    def with_needed(self, names: Iterable[str]) -> Iterator[str]:
        """The names of some networks, each after those that it is made from: its source and witnesses."""
        for name in names:
            if name in self.by_name and (own := self.by_name[name]).align is not None:
                yield from self.with_needed((own.source, *own.witnesses))
            yield name

    def clean_name(self, surrogate: Surrogate) -> str:
        """The name under which a surrogate's clean predictions are stored: its only member's, or an ensemble's own."""
        return surrogate.members[0] if len(surrogate.members) == 1 else surrogate.name

    def clean(self) -> dict[str, Predictions]:
        """The predictions on clean test images, by the name of the model or surrogate that makes them."""
        return {name: own for name, own in self._clean.items() if own.table.folder not in self.broken}

    @cached_property
    def _clean(self) -> dict[str, Predictions]:
        members: dict[str, tuple[str, ...]] = {name: (name,) for name in (*self.targets, *self.experiment.witnesses)}
        for surrogate in self.surrogates:
            members[self.clean_name(surrogate)] = surrogate.members
            members |= {name: (name,) for name in surrogate.witnesses}
        makeable = {name: own for name, own in members.items() if not self.lost.keys() & set(own)}
        return {name: self.clean_predictions(name, own) for name, own in makeable.items()}

    def clean_predictions(self, name: str, members: tuple[str, ...]) -> Predictions:
        """The predictions of the mean of some networks' logits on clean test images, stored under a name."""
        return Predictions(members, self._tables.clean(name, self._networks(members)))

    @property
    def corruptions(self) -> list[Corruption]:
        """Those that change the test images: one of colours leaves grey images as they are."""
        named = each_corruption(self.experiment.corruptions, self.inspected.shape[0])
        return [Corruption(name, severity) for name, severities in named.items() for severity in severities]

    def corrupted(self) -> dict[tuple[Corruption, str], Predictions]:
        """The surrogates' predictions on corrupted images, by the corruption and the name of the clean predictions."""
        return {pair: own for pair, own in self._corrupted.items() if own.table.folder not in self.broken}

    @cached_property
    def _corrupted(self) -> dict[tuple[Corruption, str], Predictions]:
        names = {self.clean_name(own) for own in self.surrogates} & self._clean.keys()
        members = {name: own.members for name, own in self._clean.items() if name in names}
        return {
            (one, name): Predictions(own, self._tables.corrupted(name, self._networks(own), one))
            for one in self.corruptions
            for name, own in members.items()
        }

    def adversarial(self, surrogate: Surrogate, attack: str) -> ChunkedTable:
        """The adversarial images of one surrogate and attack, which may have been made elsewhere."""
        if attack in self.experiment.made_elsewhere:
            return self._tables.made_elsewhere(surrogate, attack, self.attack_inputs(attack))
        members = self._networks(surrogate.members)
        return self._tables.adversarial(surrogate, members, attack, self.attack_inputs(attack))

    def attack_inputs(self, attack: str) -> dict[str, Any]:
        """What decides the images of an attack: its settings, the code of one that is the user's own, and the hash of
        images that were made elsewhere.
        """
        code, made = self.inspected.attacks.code.get(attack), self.inspected.attacks.made.get(attack)
        further = ({} if code is None else {"code": code}) | ({} if made is None else {"made": made})
        return self.experiment.all_attacks[attack].deciding | further

    def all_adversarial(self) -> dict[tuple[str, str], ChunkedTable]:
        """(surrogate, attack) -> the adversarial images, with those that were made elsewhere last."""
        return self._adversarial

    def crafted(self) -> dict[tuple[str, str], ChunkedTable]:
        """(surrogate, attack) -> the adversarial images that are crafted here."""
        made = self.experiment.made_elsewhere
        return {pair: table for pair, table in self.all_adversarial().items() if pair[1] not in made}

    @cached_property
    def _adversarial(self) -> dict[tuple[str, str], ChunkedTable]:
        owners = (*self.surrogates, *self.external)
        pairs = [(surrogate, attack) for surrogate in owners for attack in attacks_on(self.experiment, surrogate)]
        tables = {(surrogate.name, attack): self.adversarial(surrogate, attack) for surrogate, attack in pairs}
        return {pair: table for pair, table in tables.items() if table.folder not in self.broken}

    def cells(self) -> list[Cell]:
        """Every cell: surrogate by surrogate, attack by attack, first the surrogate itself and then the targets."""
        return [cell for cell in self._cells.values() if cell.table.folder not in self.broken]

    def cell(self, surrogate: str, attack: str, target: str) -> Cell:
        """One cell, by its names; the target may be `@self`."""
        return self._cells[surrogate, attack, target]

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str], Cell]:
        found = {}
        for (name, attack), adversarial in self.all_adversarial().items():
            surrogate = self.by_name[name]
            own = (SELF,) if surrogate.members else ()  # of images made elsewhere, the network is not known
            for target in (*own, *surrogate.unseen(self.targets)):
                members = surrogate.members if target == SELF else (target,)
                table = self._tables.outcomes(f"{name}/{attack}/{target}", self._networks(members), adversarial)
                found[name, attack, target] = Cell(name, attack, target, Predictions(members, table))
        return found

    def outcomes(self) -> dict[tuple[str, str], list[Predictions]]:
        """(surrogate, attack) -> the predictions that are wanted on its adversarial images."""
        return self._by_images(self.cells())

    def _by_images(self, cells: Iterable[Cell]) -> dict[tuple[str, str], list[Predictions]]:
        found: dict[tuple[str, str], list[Predictions]] = {pair: [] for pair in self.all_adversarial()}
        for cell in cells:
            found[cell.surrogate, cell.attack].append(cell.predictions)
        return found

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """What is predicted on which images: on the clean ones, on corrupted ones, for each surrogate and attack."""
        most, adversarial = self.experiment.compute.networks, self.all_adversarial()
        found = [Evaluation(None, list(self._clean.values()), most)] if self._clean else []
        for one in self.corruptions:
            own = [predictions for (other, _), predictions in self._corrupted.items() if other == one]
            found += [Evaluation(None, own, most, one)] if own else []
        wanted = self._by_images(self._cells.values())
        return found + [Evaluation(adversarial[pair], own, most) for pair, own in wanted.items()]

    @cached_property
    def sample(self) -> Sample:
        """The test images on which reasons are measured."""
        return sample_of(self)

    @cached_property
    def measurings(self) -> list[Measuring]:
        """What is measured of which surrogate; nothing where the experiment asks for no reasons."""
        return measurings_of(self)

    def reasons(self) -> dict[tuple[str, str], ChunkedTable]:
        """(surrogate, other network) -> its table of reasons; the other is `@self` for what needs none."""
        tables = {(one.surrogate, own.other): own.table for one in self.measurings for own in one.measured}
        return {pair: table for pair, table in tables.items() if table.folder not in self.broken}

    def table_of_reasons(
        self, folder: str, members: Sequence[Sequence[str]], further: Mapping[str, Any]
    ) -> ChunkedTable:
        """A table of reasons of some networks, those of the surrogate first, with what decides it beside these."""
        networks = [self._networks(own) for own in members]
        return self._tables.reasons(folder, networks, len(self.sample.positions), further)

    @property
    def _tables(self) -> TablesOverImages:
        compute, images = self.experiment.compute, self.inspected.manifests["test"]
        source = self.networks[self.experiment.source]
        towards = {"column": images.digest_of_towards, "least_likely": source.identity}
        return TablesOverImages(
            images.digest, self.experiment.seed, compute.chunk, compute.precision, compute.pass_rows, towards
        )

    def _networks(self, members: Sequence[str]) -> list[Network]:
        return [self.networks[member] for member in members]

    def missing(self, stage: str) -> list[str]:
        """What a stage has still to make: networks by name, tables by folder.

        If networks are missing, only these are returned, because later tables depend on them. What cannot be made is
        left out.
        """
        wanted = [surrogate.name for surrogate in self.planned if surrogate.align is not None]
        networks = [name for name in wanted + self.trained_for_run if not self.is_made(name) and name not in self.lost]
        if stage == "align" or networks:
            return networks
        listing = self.store.listing()
        joint = {"evaluate": [o.joint for o in self.evaluations], "reasons": [o.joint.within for o in self.measurings]}
        left = [own.folder for own in joint.get(stage, []) if own.leftovers(self.store, listing)]
        tables = self._tables_of(stage)
        return [table.folder for table in tables if not table.is_finished(listing) or table.done_chunks(listing)] + left

    def _tables_of(self, stage: str) -> list[ChunkedTable]:
        """The tables that a stage fills: `craft`, `reasons`, or else `evaluate`."""
        if stage == "craft":
            return list(self.all_adversarial().values())
        if stage == "reasons":
            return list(self.reasons().values())
        predicted = [*self.clean().values(), *self.corrupted().values()]
        return [cell.table for cell in self.cells()] + [own.table for own in predicted]

    def _take_note_of_broken_tables(self, stage: str) -> None:
        listing, found = self.store.listing(), {}
        for table in self._tables_of(stage):
            if not table.is_finished(listing) and (reason := table.final_failure(self.store, listing)):
                found[table.folder] = reason
        if found:
            self.broken |= found
            self._forget_tables()

    def check_finished(self, stages: Sequence[str] = STAGES[:-1]) -> None:
        """Raises RunFailed, naming what is missing, unless these stages are finished but for what cannot be made."""
        for stage in stages:
            if stage != "align" and not self.missing("align"):
                self._take_note_of_broken_tables(stage)
            if missing := self.missing(stage):
                missing = [f"{name} (its weights are damaged)" if name in self.damaged else name for name in missing]
                named = f"{', '.join(missing[:5])}{f' and {len(missing) - 5} more' if missing[5:] else ''}"
                done_by = "`witness run` does everything that is missing"
                raise RunFailed(f"`witness {stage}` has to come first: these are missing: {named}. {done_by}")
