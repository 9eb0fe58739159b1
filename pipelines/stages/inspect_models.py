"""Tries every model once as it will be used, or reads from the store what was found out when it was tried before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from align_core.defences import Wrap, defended
from align_core.errors import InputError, reason_of
from align_core.images.manifest import Manifest
from align_core.memory import Memory, memory_from
from align_core.model_config import ModelConfig, resolve_aligned
from pipelines.compute.here import weights_here
from pipelines.compute.networks import Network
from pipelines.experiment.config import Experiment
from pipelines.experiment.factories import note_code
from pipelines.experiment.factory_code import Code, factory_code
from pipelines.experiment.wraps import unwrapped
from pipelines.stages.ancestors import Ancestors, ancestors
from pipelines.stages.file_hashes import FileHashes
from pipelines.stages.first_look import FirstLook, look_at, warnings_of
from pipelines.stages.known import Known
from pipelines.stages.model_uses import ModelUse, uses_of
from pipelines.stages.seen import SEEN
from pipelines.stages.sudden_ends import Named
from pipelines.stages.trials_shown import Shown
from pipelines.storage.cache import Watch
from pipelines.storage.far import is_far
from pipelines.storage.store import Store, fingerprint_of
from pipelines.tracking.registry import Registered, registered

if TYPE_CHECKING:
    from align_core.models import Classifier


@dataclass
class InspectedModels:
    """What was found out about the models of an experiment.

    Attributes:
        networks: by name.
        folding: how many BatchNorms are folded where it predicts, and by how much logits differ then, at most.
        unused_parameters: names of those that leave parameters without a gradient when they are trained.
        notes: what a user should know before hours are spent, a sentence each.
        unsaved: files by path in the store that have still to be written.
        ancestors: what each model was made from, as far as its card says.
    """

    networks: dict[str, Network] = field(default_factory=dict)
    ancestors: dict[str, Ancestors] = field(default_factory=dict)
    folding: dict[str, dict[str, float]] = field(default_factory=dict)
    unused_parameters: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    unsaved: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Tried:
    """What a trial that passed found out; the digest is None for a model that is trained here.

    `begins` is the hash of the weights that its training starts from, if it starts from any.
    """

    digest: str | None
    notes: list[str]
    unused_parameters: bool
    channels_last: bool
    folded: Sequence[Sequence[str]]
    folding_difference: float
    frozen: list[str]
    begins: str | None = None
    memory: Memory | None = None

    def __post_init__(self) -> None:
        if isinstance(self.memory, dict):  # as the store has it
            object.__setattr__(self, "memory", memory_from(self.memory))
        are_lists = all(isinstance(own, list | tuple) for own in (self.notes, self.frozen, self.folded))
        if not isinstance(self.digest, str | None) or not isinstance(self.begins, str | None) or not are_lists:
            raise TypeError("not what a trial found out")


def inspect_models(
    experiment: Experiment,
    store: Store,
    manifests: Mapping[str, Manifest],
    shown: Shown,
    named: Named,
    trusting: bool,
    fetching: Callable[[str], Watch],
) -> InspectedModels:
    """Every model of the experiment.

    Args:
        manifests: those of the image sets, by role.
        shown: shows the trial of a model, where there is one to make.
        named: names the model whose code ends this process.
        trusting: whether weights of unchanged path, size and modification time count as unchanged.
        fetching: how it is shown that the weights of a model are fetched.

    Raises InputError, naming the model, for one that cannot do what it is used for.
    """
    found, test, files = InspectedModels(), manifests["test"], FileHashes(store, trusting)
    tried, looks = Known(store, f"{SEEN}/models.json"), Known(store, f"{SEEN}/first_looks.json")
    uses = uses_of(experiment, len(manifests["train"]))
    looked: dict[str, FirstLook] = {}
    _fetch_far(experiment, files, fetching)
    for name in experiment.models:
        try:
            model = _model(name, uses[name], experiment, test, store, files)
            found.ancestors[name] = ancestors(experiment.models[name], model.origin, model.content)
        except InputError as problem:
            raise InputError(f"models.{name}: {problem}") from problem
        if model.config.weights and not model.config.weights_file and not trusting:
            tried.forget(model.trial_key)  # a library or a factory reads its weights from where nothing here looks
        try:
            one = tried.get(model.trial_key, _Tried, named(name, shown(name, model.try_it)))
        except InputError as problem:
            mend = named(name, partial(model.mend_of_channels, str(problem)))()
            raise InputError(f"{problem}{mend}") from problem
        stored, frozen = model.origin.stored if model.origin else None, tuple(one.frozen)
        network = Network(
            name,
            model.config,
            one.digest,
            stored,
            model.code,
            channels_last=one.channels_last,
            folded=tuple((convolution, batchnorm) for convolution, batchnorm in one.folded),
            frozen=frozen,
            wraps=model.wraps,
            begins=one.begins,
            ancestors=found.ancestors[name].every,
            memory=one.memory,
        )
        if one.folded:
            found.folding[name] = {"batchnorms": len(one.folded), "largest_difference": one.folding_difference}
        found.networks[name] = network
        found.notes += [f"models.{name}: {note}" for note in one.notes]
        found.unused_parameters |= {name} if one.unused_parameters else set()
        if network.digest is not None and uses[name].has_role:
            doubted = ["size"] if model.doubts_size else []  # a look of an earlier version did not doubt it
            key = fingerprint_of([network.identity, test.digest, *doubted])
            looked[name] = looks.get(key, FirstLook, named(name, model.look))
        found.unsaved |= model.origin.unsaved if model.origin else {}
    found.notes += warnings_of(looked)
    found.unsaved |= {**tried.unsaved(), **looks.unsaved(), **files.unsaved()}
    return found


def _fetch_far(experiment: Experiment, files: FileHashes, fetching: Callable[[str], Watch]) -> None:
    """Fetches weights that are not known, before any model is tried."""
    for name, config in experiment.models.items():
        try:
            if is_far(config.weights):
                files.of_far(config.weights, fetching(f"models.{name}"))
        except InputError as problem:
            raise InputError(f"models.{name}: {problem}") from problem


def _model(
    name: str, use: ModelUse, experiment: Experiment, test: Manifest, store: Store, files: FileHashes
) -> "_Model":
    """A model of the experiment with the hashes of what it comes from. Raises InputError."""
    inner = unwrapped(experiment.models, name)
    written = experiment.models[inner.name]
    origin = registered(written, experiment, store, SEEN) if written.mlflow else None
    if origin and not _is_as_it_was(origin, files):
        origin = registered(written, experiment, store, SEEN, anew=True)
    config = origin.config if origin else resolve_aligned(written)
    code = factory_code(config.factory, experiment.factories) if config.factory else None
    if code is not None:
        note_code(str(config.factory), code)
    if inner.wraps:  # a defended model counts as of the family of the model within
        config = replace(config, family=config.family or inner.name)
    content = _bytes_of(config, origin, files)
    wraps = tuple(wrap.seeded(experiment.seed) for wrap in inner.wraps)
    return _Model(name, config, origin, code, content, use, experiment, test, wraps)


def _is_as_it_was(found: Registered, files: FileHashes) -> bool:
    """Whether the copy of a registered model is what was downloaded: its version in the registry never changes."""
    return files.of_stored(found.stored, found.unsaved.get(found.stored))[1]


def _bytes_of(config: ModelConfig, found: Registered | None, files: FileHashes) -> str | None:
    """The hash of the bytes of a model's weights; None where a library or a training supplies them."""
    if found is not None:
        return files.of_stored(found.stored, found.unsaved.get(found.stored))[0]
    if is_far(config.weights):
        return files.of_far(config.weights)
    try:
        return files.of_file(config.weights_file) if config.weights_file else None
    except OSError as problem:
        raise InputError(f"{config.weights_file}: cannot be read ({reason_of(problem)})") from problem


@dataclass(frozen=True)
class _Model:
    """One model, which is loaded when something about it is not known yet."""

    name: str
    config: ModelConfig
    origin: Registered | None
    code: Code | None
    content: str | None
    use: ModelUse
    experiment: Experiment
    test: Manifest
    wraps: tuple[Wrap, ...]

    @property
    def trial_key(self) -> str:
        """Identifies a trial: by settings, code, the bytes of the weights, and what the model is used for."""
        settings = asdict(self.config) | ({"weights": None} if self.config.weights_file else {})
        images = [self.experiment.data.classes_count, list(self.test.shape)]
        used = [self.use.crafted_on, [asdict(training) for training in self.use.trainings], self.use.sees]
        used += [self.use.derivatives] if self.use.derivatives else []
        precision = [] if (own := self.experiment.compute.precision) == "fp32" else [own]
        return fingerprint_of([settings, *images, self.code, self.content, used, *precision])

    @cached_property
    def _here(self) -> ModelConfig:
        """The settings with the weights file as it is on this machine."""
        return weights_here(self.config)

    @property
    def _classifier(self) -> "Classifier":
        return self._built[0]

    @cached_property
    def _built(self) -> tuple["Classifier", str | None, str]:
        """The model, the hash of the weights that its training starts from, and that of those a factory brings."""
        # Imported here because an input that is known needs no torch, and `witness status` must answer at once.
        from align_core.beginnings import begin
        from align_core.models import load
        from align_core.weights import hash_state

        classes, channels, begins = self.experiment.data.classes_count, self.test.shape[0], None
        try:
            if self.config.train:
                classifier, begins = begin(self._here, classes, channels, self.test.shape[1])
            else:
                classifier = load(self._here, classes, channels, self.origin.weights() if self.origin else None)
            classifier.precision = self.experiment.compute.precision
            return classifier, begins, hash_state(classifier.net) if self.config.brings_weights else ""
        except InputError as problem:
            raise InputError(f"models.{self.name}: {problem}") from problem

    def try_it(self) -> _Tried:
        """Tries the model as it will be used, but for its defences, which random pixels show nothing of.

        Raises InputError.
        """
        from align_core.trial import try_model

        if self.config.factory is not None:  # of what a library builds, its weights say all
            self._check_built_again()
        trial = try_model(
            self._classifier,
            self.name,
            self.test.shape,
            self.experiment.data.classes_count,
            crafted_on=self.use.crafted_on,
            trainings=self.use.trainings,
            sees=self.use.sees,
            derivatives=self.use.derivatives,
        )
        found = {own.name: getattr(trial, own.name) for own in fields(trial)}
        return _Tried(digest=self._digest(), begins=self._built[1], **found)

    def mend_of_channels(self, problem: str) -> str:
        """How to mend what went wrong, where the model works with images of another number of channels, and only so."""
        other = 4 - self.test.shape[0]
        if self.experiment.data.channels is not None or (self.config.weights and not self.config.weights_file):
            return ""
        if self._predicts(self.test.shape[0]) or not self._predicts(other):
            return ""
        stop = "" if problem.endswith(("?", ".")) else "."
        return f"{stop} It does take images of {other} channel{'s' * (other > 1)}: is data.channels: {other} meant?"

    def _predicts(self, channels: int) -> bool:
        """Whether the model returns logits for images of so many channels."""
        import torch

        from align_core.beginnings import begin
        from align_core.models import load

        classes = self.experiment.data.classes_count
        try:
            if self.config.train:
                classifier = begin(self._here, classes, channels, self.test.shape[1])[0].eval()
            else:
                classifier = load(self._here, classes, channels, self.origin.weights() if self.origin else None)
            logits = classifier(torch.zeros(1, channels, *self.test.shape[1:]))
        except Exception:  # of the user's code: it does not take these
            return False
        fits = logits.shape == (1, classes) and bool(logits.isfinite().all())
        return fits and classifier.mean_C11.shape[0] == channels

    def _digest(self) -> str | None:
        """The hash of its weights; None where they are trained here."""
        from align_core.weights import hash_weights

        if self.config.train:
            return None
        return self._brought_hash() if self.config.brings_weights else hash_weights(self._classifier.net.state_dict())

    def _brought_hash(self) -> str:
        """The hash of the weights that a factory brings; they must be what they were before the network was tried."""
        from align_core.weights import hash_state

        digest = self._built[2]
        if hash_state(self._classifier.net) != digest:
            raise InputError(
                f"models.{self.name}: predicting or differentiating changes the parameters or buffers of the network "
                f"that the factory {self.config.factory} returns, so that what it predicts would depend on what it saw "
                "before. Let its forward pass leave them alone, and keep what it caches in a plain attribute"
            )
        return digest

    def _check_built_again(self) -> None:
        """Raises InputError where its factory builds another network each time."""
        from pipelines.stages.built_again import check_built_again

        try:
            classes = self.experiment.data.classes_count
            check_built_again(self.config, self._classifier, self._built[2], classes, self.test.shape)
        except InputError as problem:
            raise InputError(f"models.{self.name}: {problem}") from problem

    @property
    def _has_own_normalisation(self) -> bool:
        """Whether mean and std come from the experiment, and not from whoever made the weights."""
        written = self.experiment.models[self.name]
        from_card = written.aligned is not None or written.mlflow is not None
        return not from_card and not self.wraps and (self.config.brings_weights or self.config.weights_file is not None)

    @property
    def doubts_size(self) -> bool:
        """Whether it may resize the images to another size than that which the weights of a file were trained at."""
        written, own = self.experiment.models[self.name], self.config
        is_from_file = own.weights_file is not None and own.train is None
        is_told = written.aligned is not None or written.mlflow is not None or written.wrap is not None
        may_resize = own.factory is None if own.input_size is None else own.input_size != self.test.shape[1]
        return is_from_file and not is_told and may_resize

    def look(self) -> FirstLook:
        """Shows the model a few test images. Raises InputError where its logits on them are not finite."""
        try:
            classifier = defended(self._classifier, self.wraps)
            doubts = self._has_own_normalisation, self.doubts_size
            return look_at(classifier, self.experiment.data, self.test, *doubts)
        except InputError as problem:
            raise InputError(f"models.{self.name}: {problem}") from problem
