"""The experiment file: every key with its type and default. A file is checked whole before anything is computed."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from align_core.align_config import AlignConfig
from align_core.attacks import AttackConfig, ForeignConfig, MadeElsewhere
from align_core.errors import InputError
from align_core.images import Fit, ImageSetConfig
from align_core.images.classes import read_classes
from align_core.images.fit import Interpolation
from align_core.model_config import Combine, ModelConfig, Precision
from align_core.refinements import REFINEMENTS, laid_over
from align_core.settings import described
from pipelines.experiment.attack_kinds import Attack
from pipelines.experiment.checks import checked
from pipelines.experiment.corruptions import checked_corruptions
from pipelines.experiment.explain import explained
from pipelines.experiment.matrix import with_roles
from pipelines.experiment.names import Budgeted, Control, Name, Pair
from pipelines.experiment.paths import with_absolute_paths
from pipelines.experiment.reasons_config import ReasonsConfig
from pipelines.experiment.section import Section
from pipelines.experiment.yaml_file import read_yaml

_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")
_SMALLEST_SHARE = 0.0001
_LARGEST_AMOUNT = 1_000_000
_MOST_CLASSES = 1_000_000
_MOST_WORKERS = 10_000
_LONGEST_PATIENCE_S = 30 * 24 * 3600


def _with_defence(model: Any) -> Any:
    """Gathers the settings of a defence, which stand beside `wrap` in the file."""
    if not isinstance(model, dict) or "wrap" not in model:
        return model
    own = {field.name for field in dataclasses.fields(ModelConfig)}
    settings = {key: value for key, value in model.items() if key not in own}
    return {key: value for key, value in model.items() if key in own} | {"args": {**model.get("args", {}), **settings}}


def _check_resources(resources: dict[str, float]) -> dict[str, float]:
    """Ray's own rules for resources, which it would tell only after the run has begun."""
    for name, amount in resources.items():
        if name in _RAYS_OWN:
            raise ValueError(f"{name} is set by other keys: threads and accelerator; gpus of a stage")
        if not _SMALLEST_SHARE <= amount <= _LARGEST_AMOUNT or (amount > 1 and amount != int(amount)):
            raise ValueError(
                f"{name} must be a share from {_SMALLEST_SHARE} to 1, or a whole number of at most "
                f"{_LARGEST_AMOUNT:,}, not {amount:g}"
            )
    return resources


Model = Annotated[ModelConfig, BeforeValidator(_with_defence)]
Resources = Annotated[dict[str, float], AfterValidator(_check_resources)]


def _check_absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path, which it must be, because every node has such a folder")
    return path


def _number_or_path(classes: Any) -> Any:
    """Checks `data.classes`: a number of classes, or the path of a file with their names."""
    if isinstance(classes, str) and not classes.strip().isdecimal():
        return classes
    classes = int(classes) if isinstance(classes, float) and classes.is_integer() else classes
    if not isinstance(classes, int) or isinstance(classes, bool):
        raise ValueError(
            f"must be a number of classes, or the path of a file with one class name per line, not {described(classes)}"
        )
    if not 2 <= classes <= _MOST_CLASSES:
        raise ValueError(f"must be at least 2 and at most {_MOST_CLASSES:,}, not {classes}")
    return classes


ALIGN_SETTINGS = TypeAdapter(AlignConfig)
"""Checks settings of an alignment. Making it takes longer than many checks."""


class DataConfig(Section):
    """The image sets. No image may be in two of them.

    Attributes:
        classes: the number of classes, the same for all sets and models; or a file with one class name per line, in the
            order of the models' outputs. `classes_count` is their number in either case.
        image_size: side in pixels of the centre crop out of every resized image.
        resize: length in pixels to which the short side is resized before; by default `image_size`.
        interpolation: with which images are resized.
        channels: of every image: 1 (grey) or 3 (RGB); by default 3 where an image of any set is coloured or a model
            takes RGB (`ModelConfig.takes_colour`), else 1.
        on_bad_image: whether an unreadable image stops the run, or is skipped and counted.
        on_duplicate: whether an image that is in two sets, or in one with two labels, stops the run, or is skipped and
            counted.
        train: images for alignments and for models that are trained here.
        validation: images on which a sweep chooses its settings, and an early stop the end of an alignment.
        test: images on which everything is measured.
    """

    classes: Annotated[int | str, BeforeValidator(_number_or_path)]
    image_size: int = Field(ge=1, le=4096)
    resize: int | None = Field(default=None, ge=1, le=8192)
    interpolation: Interpolation = "bicubic"
    channels: Literal[1, 3] | None = None
    on_bad_image: Literal["stop", "skip"] = "stop"
    on_duplicate: Literal["stop", "skip"] = "stop"
    train: ImageSetConfig
    validation: ImageSetConfig | None = None
    test: ImageSetConfig

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(
                f"resize: {self.resize} is below image_size ({self.image_size}), and no crop is larger than its image"
            )
        return self

    @model_validator(mode="after")
    def _check_inspection(self) -> Self:
        if self.test.is_by_bytes:
            raise ValueError(
                "test.inspect: `bytes` is for train and validation alone; test images are what is attacked, and each "
                "is compared by its pixels: leave the key out"
            )
        return self

    @property
    def fit(self) -> Fit:
        """How pictures become the pixels that are attacked."""
        return Fit(self.image_size, self.resize, self.interpolation)

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """The names in the file that `classes` names; None where it is a number. Raises InputError."""
        return read_classes(Path(self.classes)) if isinstance(self.classes, str) else None

    @property
    def classes_count(self) -> int:
        """The number of classes. Raises InputError where the file that names them is unreadable."""
        return self.classes if isinstance(self.classes, int) else len(self.class_names or ())


class VariantConfig(Section):
    """A further surrogate. Whatever it leaves out is as in the experiment.

    Attributes:
        refine: the refinement that makes it, a name in `align_core.refinements.REFINEMENTS`; by default alignment.
        source: another model than the experiment's.
        witnesses: other models than the experiment's, or surrogates that are made here.
        align: settings that differ from those of the refinement, and these from the experiment's.
        budget: a surrogate that is made here, of whose passes through networks it takes as many, instead of `epochs`.
        model: a model that was made before and is used as it is; nothing is made then.
        ensemble: models and surrogates that are crafted on together; nothing is made then.
        combine: what attacks on several networks go by: their `logits`, their `loss`, or one after the other (`cycle`).
            By default `logits` of an ensemble, and `cycle` of the networks that one refinement leaves.
    """

    refine: str | None = None
    source: str | None = None
    witnesses: list[str] | None = None
    align: dict[str, Any] = Field(default_factory=dict)
    budget: Budgeted = None
    model: str | None = None
    ensemble: list[str] | None = None
    combine: Combine | None = None

    @property
    def is_made(self) -> bool:
        """Whether a network is made for it, rather than used as it is."""
        return self.model is None and self.ensemble is None


class StageConfig(Section):
    """Settings of one stage, craft or evaluate, that override those of `compute`.

    Attributes:
        workers: the number of its workers.
        gpus: the share of a GPU that each worker takes.
        resources: further Ray resources that each worker takes.
    """

    workers: int | None = Field(default=None, ge=1, le=_MOST_WORKERS)
    gpus: float | None = Field(default=None, ge=_SMALLEST_SHARE, le=1)
    resources: Resources | None = None


class ComputeConfig(Section):
    """How the work is spread. Of these settings only `precision`, `chunk` and `pass` are part of fingerprints.

    The number of threads and the kind of processor can change the rounding of floating-point sums, and nothing else.

    Attributes:
        workers: processes that hold models.
        threads: CPU threads of each worker.
        accelerator: `auto` gives each worker a GPU if the cluster has any.
        precision: of the models' passes: `fp32`; `tf32`, float32 whose products GPUs round; or `bf16`, bfloat16.
        chunk: the group of images that is crafted, evaluated, retried and resumed as one.
        pass_rows: the key `pass`: how many images, copies of them included, go through a surrogate at once while
            attacks are crafted. By default 100 on CPUs and 1,000 on GPUs.
        resources: further Ray resources that each worker takes.
        networks: how many networks a worker of the stage evaluate holds at once.
        cache: a folder, on each node's own disk, in which training images are kept as they are decoded, so that later
            epochs and fine-tunes need not decode them again; by default none are kept.
        patience: seconds after which a worker that shows no progress counts as stuck and is replaced: that is still
            at the predictions of one chunk, has begun no pass through a surrogate, or waits for one batch of training
            images.
        craft, evaluate: settings that override these in that stage.
    """

    workers: int = Field(default=2, ge=1, le=_MOST_WORKERS)
    threads: int = Field(default=1, ge=1, le=1024)
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "fp32"
    chunk: int = Field(default=100, ge=1, le=100_000)
    pass_rows: int | None = Field(default=None, ge=1, le=1_000_000, alias="pass")
    resources: Resources = Field(default_factory=dict)
    networks: int = Field(default=16, ge=1, le=100_000)
    cache: Annotated[str, AfterValidator(_check_absolute)] | None = None
    patience: float = Field(default=300.0, gt=0, le=_LONGEST_PATIENCE_S)
    craft: StageConfig = Field(default_factory=StageConfig)
    evaluate: StageConfig = Field(default_factory=StageConfig)


class Experiment(Section):
    """One experiment. `load_experiment` fills in every default and makes every path absolute.

    Attributes:
        name: of its folder in the output folder, and of the experiment in MLflow.
        warning: what readers of its results have to know before anything else; the report says it first.
        seed: of all random choices.
        seeds: in place of `seed`: every fine-tune and every attack is repeated with each; the first decides all else.
        output: the output folder, or the URI of one in an object store.
        tracking: the URI of MLflow's store (`pipelines.tracking.runs.tracking_uri` has the default).
        registered_as: the key `register`: the name under which the aligned model goes to MLflow's registry.
        mlflow_models: which surrogates that are made here become MLflow models: `aligned`, `all` of them, or `none`.
        factories: the folder in which the modules of `factory:` are looked for first; by default that of the file.
        data, models: the image sets, and all models by name.
        source, witnesses, targets, validation_targets: names of models, by their role.
        matrix: in place of `source` and `targets`: models of which each is a source, and a target of the others. Then
            `targets` holds all of them, and `source` the first.
        groups: targets by the name of a group; the tables have the mean over each.
        controls: the surrogates that a gain is compared with.
        align: the settings of the alignment.
        variants: further surrogates by name.
        contrasts: further pairs of surrogates that are compared, beside those that always are.
        all_attacks: the key `attacks`: those by which images are crafted here (`attacks`), and images that were made
            elsewhere (`made_elsewhere`), by name.
        corruptions: common corruptions of the clean images, and their severities, on which surrogates are evaluated
            too; `all` stands for every corruption.
        reasons: what the reasons are measured on; null where they are not measured.
        compute: how the work is spread.
    """

    name: Name
    warning: str | None = Field(default=None, min_length=1)
    seed: int = Field(default=0, ge=0)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    output: str = "runs"
    tracking: str | None = None
    registered_as: Name | None = Field(default=None, alias="register")
    mlflow_models: Literal["aligned", "all", "none"] = "aligned"
    factories: str | None = None
    data: DataConfig
    models: dict[Name, Model]
    source: str
    witnesses: list[str]
    targets: list[str] = Field(min_length=1)
    matrix: list[str] = Field(default_factory=list)
    validation_targets: list[str] = Field(default_factory=list)
    groups: dict[Name, list[str]] = Field(default_factory=dict)
    controls: list[Control] = Field(default_factory=lambda: list(get_args(Control)))
    align: AlignConfig = Field(default_factory=AlignConfig)
    variants: dict[Name, VariantConfig] = Field(default_factory=dict)
    contrasts: list[Pair] = Field(default_factory=list)
    all_attacks: dict[Name, Attack] = Field(alias="attacks", min_length=1)
    corruptions: Annotated[dict[str, list[int]], AfterValidator(checked_corruptions)] = Field(default_factory=dict)
    reasons: ReasonsConfig | None = None
    compute: ComputeConfig = Field(default_factory=ComputeConfig)

    @model_validator(mode="before")
    @classmethod
    def _first_of_seeds(cls, content: Any) -> Any:
        """The first of several seeds is that of whatever is not repeated."""
        if not isinstance(content, dict) or not content.get("seeds") or not isinstance(content["seeds"], list):
            return content
        if content.get("seed") is not None:
            raise ValueError(
                "seeds: it stands in place of `seed`, and both are given; to repeat with each of `seeds`, leave `seed` "
                "out (seed: null), and to do it once with `seed`, leave `seeds` out (seeds: [])"
            )
        first = content["seeds"][0]
        is_sound = type(first) in (int, float) and first >= 0 and float(first).is_integer()
        return content | {"seed": first if is_sound else 0}  # what is wrong with it is said of `seeds`

    @model_validator(mode="before")
    @classmethod
    def _roles_in_a_matrix(cls, content: Any) -> Any:
        """The models of a matrix are sources and targets."""
        return with_roles(content)

    @property
    def sources(self) -> list[str]:
        """The models that stand for themselves as sources: one, or those of a matrix."""
        return self.matrix or [self.source]

    @property
    def attacks(self) -> dict[str, AttackConfig | ForeignConfig]:
        """The attacks by which images are crafted here, by name: all but images that were made elsewhere."""
        return {name: own for name, own in self.all_attacks.items() if not isinstance(own, MadeElsewhere)}

    @property
    def made_elsewhere(self) -> dict[str, MadeElsewhere]:
        """The adversarial images that were made elsewhere, by the name of their attack."""
        return {name: own for name, own in self.all_attacks.items() if isinstance(own, MadeElsewhere)}

    def variant_align(self, name: str) -> AlignConfig:
        """How a variant is made: its own settings over those of its refinement, and these over the experiment's.

        Raises ValidationError.
        """
        variant = self.variants[name]
        refined = laid_over(
            dataclasses.asdict(self.align), REFINEMENTS[variant.refine].settings if variant.refine else {}
        )
        return ALIGN_SETTINGS.validate_python(laid_over(refined, variant.align))

    def models_of(self, variant: VariantConfig) -> list[str]:
        """Returns the models that a variant names: of its source, its witnesses, its ensemble, or its own."""
        named = (variant.source, variant.model, *(variant.witnesses or ()), *(variant.ensemble or ()))
        return [name for name in named if name in self.models]

    def alignments(self) -> list[tuple[str, str, list[str]]]:
        """Returns (key of the witnesses in the file, source, witnesses) of every alignment that is made here."""
        own = [("witnesses", source, self.witnesses) for source in self.sources]
        return own + [
            (f"variants.{name}.witnesses", variant.source or self.source, variant.witnesses or self.witnesses)
            for name, variant in self.variants.items()
            if variant.is_made and self.variant_align(name).needs_witnesses
        ]

    def image_sets(self) -> dict[str, ImageSetConfig]:
        """Returns the image sets that the experiment has, by their role: train, validation and test."""
        sets = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {role: config for role, config in sets.items() if config is not None}


def load_experiment(path: Path, overrides: Sequence[str] = (), output: str | None = None) -> Experiment:
    """Reads and checks an experiment file. No image and no weights are read.

    Args:
        path: the YAML file.
        overrides: settings `key.path=value` that replace those of the file.
        output: replaces the output folder.

    Raises InputError, which names the file and the key.
    """
    content = read_yaml(path, overrides)
    if output is not None:
        content["output"] = output
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as problem:
        raise InputError(f"{path}: " + explained(problem, Experiment)) from problem
    try:
        experiment = with_absolute_paths(checked(experiment), path.absolute().parent)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem
    try:
        assert experiment.data.classes_count > 1
    except InputError as problem:
        raise InputError(f"{path}: data.classes: {problem}") from problem
    return experiment
