"""A sweep as it was asked for: its options are checked, and its trials and its end are found in the store."""

from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Literal

from align_core.align_config import AugmentConfig
from align_core.errors import InputError, reason_of
from pipelines.compute.cluster import Worker, room_for
from pipelines.compute.device_failures import LeftAlone
from pipelines.compute.others import pool_of
from pipelines.compute.ray_train import beside_failed_gpus
from pipelines.experiment.config import Experiment
from pipelines.experiment.explain import nearest
from pipelines.experiment.wraps import unwrapped
from pipelines.failure import RunFailed
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.makings import Making, images_seen
from pipelines.stages.payload import fine_tune_of, network_loader
from pipelines.stages.revisions import REVISIONS
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store, fingerprint_of
from pipelines.sweep.best import best_experiment
from pipelines.sweep.entry import ALIGNED, entry_of
from pipelines.sweep.record import Record, RecordReader, trial_fingerprint
from pipelines.sweep.space import Space, load_space, read_space
from pipelines.sweep.trial import Sweep, measure_baseline
from pipelines.sweep.validation import Baseline, ValidationSetup

SEARCHERS = ("random", "optuna", "grid")
SCHEDULERS = ("none", "asha")
# The CPUs of a trial whose workers are Ray Train's. With a whole CPU each, trials could take all CPUs and then wait for
# ever for their own workers; Ray Tune refuses 0.
TRIAL_CPUS = 0.01
_RETRIES = 2
_MOST_TRIALS = 100_000
# Before images are looked at, a budget is taken for that of so many: it is enough for a step of anything.
_MANY_IMAGES = 10**9


@dataclass(frozen=True)
class Options:
    """How to sweep.

    Args:
        space: a name in `tune_spaces`, or the path of a YAML file.
        samples: how many settings are tried. A grid has its own number; every other searcher needs one.
        searcher: how settings are drawn; `optuna` is Optuna's TPE, which learns from the trials that have ended.
        scheduler: `asha` stops unpromising trials early (asynchronous successive halving).
        concurrent: the number of trials at once; None means as many as `compute.workers` allows and the cluster holds.
        max_clean_drop: how many points of clean accuracy the chosen settings may cost.
        attack: the attack that is used on the validation images; None means the experiment's first.
        surrogate: the name of the surrogate whose settings are searched.
    """

    space: str
    samples: int | None = None
    searcher: Literal["random", "optuna", "grid"] = "random"
    scheduler: Literal["none", "asha"] = "none"
    concurrent: int | None = None
    max_clean_drop: float = 1.0
    attack: str | None = None
    surrogate: str = ALIGNED


class Study:
    """A sweep over one experiment.

    Raises InputError, naming the flag or the key, where the options do not fit together or do not fit the experiment.

    Attributes:
        blueprint, options: the experiment and how to sweep over it.
        space, attack, samples: what `options` says of them, or its default.
        entry: the surrogate whose settings are searched.
        needed: the networks that trials use, and those that these are made from.
        name: the sweep's own. folder: its folder in the store.
    """

    def __init__(self, blueprint: Blueprint, options: Options) -> None:
        experiment = blueprint.experiment
        self.blueprint, self.options = blueprint, options
        check_sweep(experiment, options)
        self.entry = entry_of(experiment, options.surrogate, len(blueprint.inspected.manifests["train"]))
        self.space = load_space(options.space, self.entry)
        self.attack = options.attack or next(iter(experiment.attacks))
        self.samples = _samples(options, self.space)
        best_experiment(experiment, self.entry, self.space.name, {})  # raises now rather than after the last trial
        targets = {unwrapped(experiment.models, name).name for name in experiment.validation_targets}
        witnesses = (self.entry.networks[name] for name in self.entry.witnesses)
        self.needed = set(blueprint.with_needed([self.entry.surrogate.source, *witnesses, *targets]))
        self.name = self.entry.label(self.space.name)
        self.folder = f"sweeps/{self.name}"

    @property
    def inputs(self) -> dict[str, Any]:
        """What every trial's result depends on besides its settings. The networks that are trained here must exist."""
        blueprint, experiment = self.blueprint, self.blueprint.experiment
        making = self._making
        images = making.inputs["images"]
        tuned = {}
        if self.entry.name != ALIGNED:
            tuned = {"surrogate": self.entry.name, "combine": self.entry.surrogate.combine}
        if "align.augment.crop" in self.space.keys:  # trials see both, the images' pixels and the original pictures
            crops = (AugmentConfig(crop="none"), AugmentConfig(crop="random_resized"))
            images = [images_seen(crop, experiment, blueprint.inspected.manifests["train"]) for crop in crops]
        return {
            **{key: value for key, value in making.inputs.items() if key not in ("settings", "witnesses")},
            **tuned,
            "images": images,
            "stage": "trial",
            "revision": [REVISIONS["align"], REVISIONS["craft"], REVISIONS["evaluate"], REVISIONS["trial"]],
            "validation": blueprint.inspected.manifests["validation"].digest,
            "targets": {name: blueprint.networks[name].identity for name in experiment.validation_targets},
            "attack": blueprint.attack_inputs(self.attack),
            "pass": experiment.compute.pass_rows,
            "chunk": experiment.compute.chunk,
        }

    @property
    def fingerprint(self) -> str:
        """The sweep's fingerprint: of what is tried, how settings are drawn, and what trials are measured on."""
        options, space = self.options, self.space
        ranges = {key: dimension.model_dump(exclude={"why"}) for key, dimension in space.ranges.items()}
        drawn = [ranges, dict(space.choices), self.samples, options.searcher, options.scheduler]
        base = {key: value for key, value in asdict(self.entry.align).items() if key != "early_stop"}
        # The drop is part of the score that Optuna learns from; elsewhere it only says which trial is chosen.
        learns_from = options.max_clean_drop if options.searcher == "optuna" else None
        budget = [] if self.entry.budget is None else [self.entry.budget]
        return fingerprint_of([self.inputs, drawn, base, list(self.entry.witnesses), learns_from, *budget])

    def is_over(self) -> bool:
        """Tells whether a sweep with this fingerprint has ended before, and its trials are still there."""
        if any(self.blueprint.networks[name].digest is None for name in self.needed):
            return False
        stored = self.blueprint.store.read_json(f"{self.folder}/sweep.json") or {}
        trials = stored.get("trials")
        return (
            stored.get("fingerprint") == self.fingerprint and isinstance(trials, list) and self.is_complete({*trials})
        )

    def is_complete(self, drawn: set[str]) -> bool:
        """Tells whether the sweep is complete: all these trials are over, and they are as many as asked for.

        A space that holds fewer settings than asked for is complete when all of them were tried.

        Args:
            drawn: the fingerprints of the trials that were drawn.
        """
        records = self.records()
        all_over = all(fingerprint in records and records[fingerprint].is_final for fingerprint in drawn)
        return all_over and len(drawn) >= min(self.samples, self.space.size)

    def concurrent(self, worker: Worker) -> int:
        """Returns the number of trials at once.

        Raises InputError, with the numbers, where as many as asked for do not fit the cluster.
        """
        experiment, asked = self.blueprint.experiment, self.options.concurrent
        workers, room = self.entry.align.workers, room_for(worker)
        fitting = room // workers
        if workers > 1:
            fitting = min(fitting, room_for(replace(worker, cpus=worker.cpus + TRIAL_CPUS / workers)) // workers)
        needs = ", ".join(f"{need:g} {name}" for name, need in worker.needs.items())
        if fitting < 1:
            raise InputError(
                f"align.workers: a trial needs {workers} x ({needs}), and this cluster has room for {room} such workers"
                + (" beside the trial itself" if room >= workers else "")
            )
        if asked is not None and asked > fitting:
            raise InputError(
                f"--concurrent {asked}: each trial needs {workers} x ({needs}); the cluster has room for {room} such "
                f"workers, so for {fitting} at once"
            )
        return asked or max(1, min(fitting, experiment.compute.workers // workers))

    def sweep(self, worker: Worker) -> Sweep:
        """Measures the baseline on the cluster and returns what every trial needs to know. Raises RunFailed."""
        import ray

        blueprint, experiment = self.blueprint, self.blueprint.experiment
        manifest, images = blueprint.inspected.manifests["validation"], experiment.data.validation
        assert images is not None
        validation = ValidationSetup(
            images=images,
            fit=experiment.data.fit,
            image_ids=manifest.ids,
            labels=manifest.labels.tolist(),
            contents=manifest.contents,
            source=self.entry.surrogate.source,
            targets=tuple(experiment.validation_targets),
            attack=experiment.attacks[self.attack],
            seed=experiment.seed,
            pass_rows=experiment.compute.pass_rows,
            chunk=experiment.compute.chunk,
            pool=pool_of("data.validation", manifest, images, experiment.data.fit, experiment.seed),
        )
        base = replace(fine_tune_of(blueprint, self._making, worker), loader=network_loader(blueprint))
        task = ray.remote(measure_baseline).options(**worker.ray_options, max_retries=_RETRIES)

        def measured() -> Baseline:
            try:
                found: Baseline = ray.get(task.remote(validation, base, worker))
            except ray.exceptions.RayTaskError as problem:
                raise (problem.cause if isinstance(problem.cause, LeftAlone) else problem) from problem
            return found

        try:
            baseline = beside_failed_gpus(measured, blueprint.store, worker)
        except (ray.exceptions.RayTaskError, ray.exceptions.RayError) as problem:
            raise RunFailed(
                f"the source could not be measured on the validation images: {reason_of(problem)}"
            ) from problem
        return Sweep(
            store=blueprint.store,
            folder=self.folder,
            entry=self.entry,
            base=base,
            inputs=self.inputs,
            identities=self._identities,
            validation=validation,
            baseline=baseline,
            max_clean_drop=self.options.max_clean_drop,
            worker=worker,
            is_scheduled=self.options.scheduler != "none",
        )

    def reader(self) -> RecordReader:
        """Returns what reads the records of this sweep's trials, again and again.

        Records of a space that was changed since, or of other settings of the experiment, are left out.
        """
        entry, inputs, identities = self.entry, self.inputs, self._identities

        def belongs(fingerprint: str, record: Record) -> bool:
            holds = self.space.holds(record.settings)
            return holds and trial_fingerprint(entry, inputs, identities, record.settings) == fingerprint

        return RecordReader(self.blueprint.store, self.folder, belongs)

    def records(self) -> dict[str, Record]:
        """Reads the records of this sweep's trials, by fingerprint."""
        return self.reader().read()

    @property
    def _identities(self) -> dict[str, Any]:
        networks = self.entry.networks
        return {name: self.blueprint.networks[networks[name]].identity for name in self.entry.witnesses}

    @property
    def _making(self) -> Making:
        """The fine-tune with the settings of the surrogate's entry. Its source and witnesses must exist."""
        name = self.entry.networks[self.entry.name]
        return next(making for making in self.blueprint.alignments() if making.name == name)

    def copy_known(self, name: str) -> None:
        """Copies what is known of images and models, and the networks made for trials, to another experiment.

        Raises Busy where another run holds the experiment `name`.
        """
        store, other = self.blueprint.store, Store(self.blueprint.experiment.output, name)
        with other.locked():
            for file in store.listing(SEEN).get(SEEN, []):
                if not other.exists(f"{SEEN}/{file}"):
                    other.write(f"{SEEN}/{file}", store.read(f"{SEEN}/{file}"))
            self._copy_made(store, other)

    def keep_made(self, name: str) -> None:
        """Copies the networks that another experiment made to this one, so that none is made twice.

        Raises Busy where another run holds this experiment.
        """
        store, other = self.blueprint.store, Store(self.blueprint.experiment.output, name)
        with store.locked():
            self._copy_made(other, store)

    def _copy_made(self, store: Store, other: Store) -> None:
        surrogates = (making for making in self.blueprint.alignments() if making.name in self.needed)
        for making in chain(self.blueprint.trainings(), surrogates):
            folder = making.folder
            own, others = ((each.read_json(f"{folder}/card.json") or {}).get("fingerprint") for each in (store, other))
            if own != making.fingerprint or others == own:
                continue
            if there := other.listing(folder).get(folder, []):
                other.set_aside(folder, there)
            for file in (
                "model.safetensors",
                "curves.csv",
                "card.json",
            ):  # the card comes last: it says that all is there
                other.write(f"{folder}/{file}", store.read(f"{folder}/{file}"))


def check_sweep(experiment: Experiment, options: Options) -> None:
    """Checks what the experiment file alone tells, before images and models are inspected.

    Raises InputError, naming the flag or the key.
    """
    _check_options(options)
    if experiment.matrix:
        raise InputError("matrix: a sweep is over the alignment of one source; name `source` and `targets` instead")
    if not experiment.validation_targets or experiment.data.validation is None:
        missing = "data.validation" if experiment.validation_targets else "validation_targets"
        raise InputError(
            f"{missing}: must be given: a sweep chooses on validation images and targets, not on the test ones"
        )
    entry = entry_of(experiment, options.surrogate, _MANY_IMAGES)
    if entry.align.early_stop is not None:
        raise InputError(
            "early_stop: a sweep measures every trial on the validation images itself, and takes all steps; leave "
            "it out here with --set align.early_stop=null, or in the variant"
        )
    _check_attack(experiment, options.attack or next(iter(experiment.attacks)))
    _samples(options, read_space(options.space, entry))


def _check_attack(experiment: Experiment, attack: str) -> None:
    if attack not in experiment.attacks:
        raise InputError(f"--attack: the experiment has no attack {attack!r}{nearest(attack, experiment.attacks)}")
    if experiment.attacks[attack].is_targeted:
        raise InputError(
            f"--attack: {attack} leads towards a class, and a sweep measures how often targets are led away from the "
            "label; name an attack with towards: away"
        )


def _check_options(options: Options) -> None:
    if options.searcher not in SEARCHERS:
        raise InputError(f"--searcher: there is no searcher {options.searcher!r}{nearest(options.searcher, SEARCHERS)}")
    if options.scheduler not in SCHEDULERS:
        raise InputError(
            f"--scheduler: there is no scheduler {options.scheduler!r}{nearest(options.scheduler, SCHEDULERS)}"
        )
    for flag, value in (("samples", options.samples), ("concurrent", options.concurrent)):
        if value is not None and not 1 <= value <= _MOST_TRIALS:
            raise InputError(f"--{flag} {value}: must be at least 1 and at most {_MOST_TRIALS:,}")
    if not 0 <= options.max_clean_drop <= 100:
        raise InputError(
            f"--max-clean-drop {options.max_clean_drop:g}: must be points of clean accuracy, from 0 to 100"
        )


def _samples(options: Options, space: Space) -> int:
    if options.searcher == "grid":
        size = space.grid_size
        if size > _MOST_TRIALS:
            raise InputError(f"--space: the grid of {space.name} has {size:,} points, more than {_MOST_TRIALS:,}")
        if options.samples is not None and options.samples != size:
            raise InputError(
                f"--samples {options.samples}: the grid of {space.name} has {size} points; leave this flag out"
            )
        return size
    if options.samples is None:
        raise InputError(f"--samples: must be given: the number of settings that {options.searcher} tries")
    return options.samples
