"""The experiment file, validated: every key typed, every role checked, before any work and without reading data."""

import dataclasses
import difflib
import os
import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    TypeAdapter,
    ValidationError,
)

from align_core.align_config import AlignConfig
from align_core.attacks import AttackConfig, pixel_fraction
from align_core.data import ImageSetConfig
from align_core.errors import InputError
from align_core.model_config import ModelConfig, Precision
from pipelines.experiment.yaml_file import merged, read_yaml

Control = Literal["label_only", "witness", "ensemble", "aligned_ensemble"]
# `mean` is what MLflow's keys call the row over all targets.
RESERVED_NAMES = {"source", "aligned", "mean", *get_args(Control)}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def _check_name(name: str) -> str:
    """Names become folder names and MLflow keys: nothing in them may lead elsewhere."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name: letters, digits, '_', '-' and '.' alone, a letter or digit first")
    return name


def _with_fractions(attack: Any) -> Any:
    """`4/255` becomes a number before the attack's own checks see it."""
    if not isinstance(attack, dict):
        return attack
    settings = {field.name for field in dataclasses.fields(AttackConfig)}
    attack = {key: value for key, value in attack.items() if value is not None or key not in settings}
    written = {key: attack[key] for key in ("eps", "step") if key in attack}
    try:
        return attack | {key: pixel_fraction(value) for key, value in written.items()}
    except ValueError as problem:
        raise ValueError(f"eps, step: {problem}") from problem


Name = Annotated[str, AfterValidator(_check_name)]
Attack = Annotated[AttackConfig, BeforeValidator(_with_fractions)]


class Section(BaseModel):
    """A part of a file that users write: no unknown keys, nothing infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True)


class DataConfig(Section):
    """Image sets, all of `classes` classes, read at `image_size` pixels. They must not share an image."""

    classes: int = Field(ge=2)
    image_size: int = Field(ge=1, le=4096)
    on_bad_image: Literal["stop", "skip"] = "stop"
    train: ImageSetConfig
    validation: ImageSetConfig | None = None
    test: ImageSetConfig


class VariantConfig(Section):
    """A further aligned surrogate: what it does not give is the experiment's own.

    model: one that was aligned before, and is taken as it is; nothing is aligned then.
    """

    source: str | None = None
    witnesses: list[str] | None = None
    align: dict[str, Any] = Field(default_factory=dict)
    model: str | None = None


class StageConfig(Section):
    """What is otherwise in one stage: how many workers there are, and the share of a GPU and resources each takes."""

    workers: int | None = Field(default=None, ge=1)
    gpus: float | None = Field(default=None, gt=0, le=1)
    resources: dict[str, PositiveFloat] | None = None


class ComputeConfig(Section):
    """How the work is spread; of this, precision and chunk alone may change a result.

    workers: processes that hold models, each with `threads` CPU threads and one GPU where `accelerator` says so
    (`auto`: where the cluster has GPUs). resources: further Ray resources that each worker takes. chunk: images that
    are crafted as one batch. networks: how many a worker that evaluates holds at once. patience: seconds that a worker
    may be at one chunk; then it counts as stuck and is replaced. craft, evaluate: what is otherwise there.
    """

    workers: int = Field(default=2, ge=1)
    threads: int = Field(default=1, ge=1)
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "fp32"
    chunk: int = Field(default=100, ge=1)
    resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    networks: int = Field(default=16, ge=1)
    patience: PositiveFloat = 300.0
    craft: StageConfig = Field(default_factory=StageConfig)
    evaluate: StageConfig = Field(default_factory=StageConfig)


class Experiment(Section):
    """One experiment, as its file says, with every default filled in and every path made absolute.

    `factories`: the folder in which the modules of `factory:` are looked for first; that of the file unless given.
    `register`: the name under which the aligned model goes to MLflow's registry.
    """

    name: Name
    seed: int = Field(default=0, ge=0)
    output: str = "runs"
    tracking: str | None = None
    registered_as: Name | None = Field(default=None, alias="register")
    factories: str | None = None
    data: DataConfig
    models: dict[Name, ModelConfig]
    source: str
    witnesses: list[str] = Field(min_length=1)
    targets: list[str] = Field(min_length=1)
    validation_targets: list[str] = Field(default_factory=list)
    controls: list[Control] = Field(default_factory=lambda: list(get_args(Control)))
    align: AlignConfig = Field(default_factory=AlignConfig)
    variants: dict[Name, VariantConfig] = Field(default_factory=dict)
    attacks: dict[Name, Attack] = Field(min_length=1)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)

    def variant_align(self, name: str) -> AlignConfig:
        """The `align` settings of one variant: its own over the experiment's."""
        own = merged(dataclasses.asdict(self.align), self.variants[name].align)
        return TypeAdapter(AlignConfig).validate_python(own)

    def image_sets(self) -> dict[str, ImageSetConfig]:
        """The image sets that there are, by their role."""
        sets = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {role: config for role, config in sets.items() if config is not None}


def load_experiment(path: Path, overrides: Sequence[str] = (), output: str | None = None) -> Experiment:
    """Reads and checks an experiment file. Raises InputError, which names the file and the key."""
    content = read_yaml(path, overrides)
    if output is not None:
        content["output"] = output
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as problem:
        raise InputError(f"{path}: " + explained(problem, Experiment)) from problem
    try:
        return _with_absolute_paths(checked(experiment), path.absolute().parent)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem


def checked(experiment: Experiment) -> Experiment:
    """The experiment, if its parts fit each other. Raises InputError."""
    _check_name_of(experiment)
    for name in experiment.variants:
        _check_variant(experiment, name)
    _check_roles(experiment)
    return experiment


def _check_name_of(experiment: Experiment) -> None:
    try:
        _check_name(experiment.name)
    except ValueError as problem:
        raise InputError(f"name: {problem}") from problem


def _check_variant(experiment: Experiment, name: str) -> None:
    try:
        experiment.variant_align(name)
    except ValidationError as problem:
        raise InputError(explained(problem, AlignConfig, within=f"variants.{name}.align")) from problem


def _check_roles(experiment: Experiment) -> None:
    """Every role names a model; no model is seen by the attacker and a target too; no name is taken twice."""
    roles = {"source": [experiment.source], "witnesses": experiment.witnesses, "targets": experiment.targets}
    roles["validation_targets"] = experiment.validation_targets
    for name, variant in experiment.variants.items():
        roles[f"variants.{name}.source"] = [variant.source] if variant.source else []
        roles[f"variants.{name}.witnesses"] = variant.witnesses or []
        roles[f"variants.{name}.model"] = [variant.model] if variant.model else []
        if variant.model and (variant.align or variant.witnesses):
            raise InputError(f"variants.{name}.model: is taken as it is; align and witnesses do not apply")
        if variant.witnesses == []:
            raise InputError(f"variants.{name}.witnesses: must name at least one model")
    for role, names in roles.items():
        for name in names:
            if name not in experiment.models:
                raise InputError(f"{role}: there is no model {name!r}{nearest(name, experiment.models)}")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{role}: {twice[0]} is named twice")
    _check_disjoint(experiment, roles)
    if experiment.name in ("mlflow.db", "mlartifacts"):
        raise InputError(f"name: {experiment.name} lies in the output folder already, and is MLflow's; choose another")
    for kind, taken in (("models", experiment.models), ("variants", experiment.variants)):
        for name in taken:
            if name in RESERVED_NAMES or name.startswith(("source-", "witness-")):
                raise InputError(f"{kind}.{name}: this name has a meaning in every experiment; choose another")
    for name in experiment.variants:
        if name in experiment.models:
            raise InputError(f"variants.{name}: a model has this name; a variant needs one of its own")


def _check_disjoint(experiment: Experiment, roles: dict[str, list[str]]) -> None:
    attacker = {name: role for role, names in roles.items() if not role.endswith("targets") for name in names}
    for role in ("targets", "validation_targets"):
        for name in roles[role]:
            if name in attacker:
                raise InputError(
                    f"{role}: {name} is named in {attacker[name]} too; a target is a model that the attacker cannot see"
                )
    for role, source, witnesses in alignments_of(experiment):
        if source in witnesses:
            raise InputError(f"{role}: {source} is the source too; a witness is an independently trained model")
    both = set(experiment.targets) & set(experiment.validation_targets)
    if both:
        raise InputError(f"validation_targets: {min(both)} is in targets too; tuning must not see a test target")


def alignments_of(experiment: Experiment) -> list[tuple[str, str, list[str]]]:
    """(key of the witnesses, source, witnesses) of every alignment."""
    own = [("witnesses", experiment.source, experiment.witnesses)]
    return own + [
        (f"variants.{name}.witnesses", variant.source or experiment.source, variant.witnesses or experiment.witnesses)
        for name, variant in experiment.variants.items()
        if variant.model is None
    ]


def nearest(name: str, known: Any) -> str:
    """`; did you mean X?`, or what there is."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(sorted(map(str, known)))}"


def explained(problem: ValidationError, root: Any, within: str = "") -> str:
    """Pydantic's findings in one line each: the dotted key, what is wrong, and the nearest known key.

    `within`: the key that `root` lies under.
    """
    lines = []
    for error in problem.errors():
        place = [part for part in error["loc"] if not str(part).startswith(("function-", "[key]"))]
        key = ".".join(str(part) for part in ([within] if within else []) + place)
        if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(f"{key}: unknown key{nearest(str(place[-1]), known_keys(root, place[:-1]))}")
        elif error["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            lines.append(f"{key}: this key is required")
        elif error["type"] in ("dataclass_type", "model_type", "dict_type"):
            lines.append(f"{key}: must hold keys and values")
        else:
            given = error["input"]
            shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
            lines.append(f"{key}: {error['msg'].removeprefix('Value error, ')}{shown}")
    return "\n  ".join(lines)


def known_keys(kind: Any, place: Sequence[Any]) -> list[str]:
    """The keys that the type at `place` below `kind` knows."""
    origin = get_origin(kind)
    if origin is Annotated:
        return known_keys(get_args(kind)[0], place)
    if origin in (Union, types.UnionType):
        return [key for option in get_args(kind) for key in known_keys(option, place)]
    if origin is dict:
        return known_keys(get_args(kind)[1], place[1:]) if place else []
    if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel)):
        hints = {name: hint for name, hint in get_type_hints(kind, include_extras=True).items() if name[0] != "_"}
        known = (
            {entry.name for entry in dataclasses.fields(kind)}
            if dataclasses.is_dataclass(kind)
            else {field.alias or name for name, field in kind.model_fields.items()}
        )
        return known_keys(hints.get(str(place[0])), place[1:]) if place else sorted(known)
    return []


def _expanded(path: str) -> Path:
    """`~` and `$NAME` as a shell would read them. Raises InputError for a name that is not set."""
    unset = [name for name in re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", path) if name not in os.environ]
    if unset:
        raise InputError(f"{path}: the environment has no {unset[0]}; set it, or write the path itself")
    return Path(os.path.expandvars(path)).expanduser()


def _with_absolute_paths(experiment: Experiment, folder: Path) -> Experiment:
    """Paths are relative to the file; a plain `output` to the current folder. `$NAME` is the environment's."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str((folder / _expanded(path)).absolute())

    def image_set(config: ImageSetConfig | None) -> ImageSetConfig | None:
        return config and dataclasses.replace(config, path=absolute(config.path), labels=absolute(config.labels))

    def model(config: ModelConfig) -> ModelConfig:
        weights = absolute(config.weights) if config.weights and config.weights_file else config.weights
        return dataclasses.replace(config, weights=weights, aligned=absolute(config.aligned))

    data = experiment.data
    sets = {"train": image_set(data.train), "validation": image_set(data.validation), "test": image_set(data.test)}
    models = {name: model(config) for name, config in experiment.models.items()}
    output = experiment.output if "://" in experiment.output else str(_expanded(experiment.output).absolute())
    own = {"data": data.model_copy(update=sets), "models": models, "output": output}
    return experiment.model_copy(update=own | {"factories": absolute(experiment.factories or ".")})
