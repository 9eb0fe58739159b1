"""`witness init`: a commented starter experiment, from flags, and from answers where flags are missing.

What is given is checked against the data before anything is written: the folders or arrays must hold images of the same
classes, and every model must be one that timm has. The text of the file is in `template`.
"""

import argparse
import difflib
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from align_core.errors import InputError

if TYPE_CHECKING:
    from align_core.images import ImageSet
    from align_core.images.labels import RawLabels

Kind = Literal["folder", "npz", "parquet"]
Parsed = TypeVar("Parsed")

SMALL_SIDE = 64
"""Images of up to this many pixels are used at 32, the size of CIFAR-10; larger ones at 224, that of ImageNet."""
_LARGEST_LABEL = 10**6
_KINDS: dict[str, Kind] = {".npz": "npz", ".parquet": "parquet"}

QUESTIONS = {
    "train": "Training images (a folder with a sub-folder per class or a CSV file of labels, or Parquet or .npz files)",
    "test": "Test images, none of them among the training images",
    "source": "Source, the model that is aligned (a name of timm's, NAME=pretrained, or NAME=PATH to its weights)",
    "witness": "Witnesses, to which it is aligned (one or more, separated by spaces)",
    "target": "Targets, the models that are attacked (one or more, separated by spaces)",
}
"""What is asked on a terminal for each flag that is needed and not given."""


@dataclass(frozen=True)
class Images:
    """One image set, as a look at its listing and its first image shows it.

    Attributes:
        path: the folder or file.
        kind: of the image set.
        count: number of images.
        labels: class names or indices.
        side: short side of the first image, in pixels.
        label_file: of a folder without sub-folders, the file with the labels.
    """

    path: Path
    kind: Kind
    count: int
    labels: "RawLabels"
    side: int
    label_file: Path | None = None


@dataclass(frozen=True)
class Model:
    """A model as it was asked for: a name of timm's, and weights: a path, `pretrained`, or None to train it here."""

    timm: str
    weights: str | None = None

    @property
    def key(self) -> str:
        """Its name in the experiment: without dots, which would be separators in `--set models.NAME.key=value`."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", self.timm).strip("-")


@dataclass(frozen=True)
class Starter:
    """Everything that the starter file says about one experiment."""

    file: Path
    name: str
    train: Images
    test: Images
    classes: int
    image_size: int
    source: Model
    witnesses: list[Model]
    targets: list[Model]

    @property
    def models(self) -> list[Model]:
        """The source, the witnesses, and the targets."""
        return [self.source, *self.witnesses, *self.targets]


def init_command(options: argparse.Namespace) -> int:
    """Writes the file, and says what to do with it. Raises InputError; then nothing is written."""
    from pipelines.cli.template import text_of

    file: Path = options.file
    _check_place(file)
    try:
        starter = _starter(options)
    except EOFError:
        raise InputError("the questions were not answered to the end; nothing was written") from None
    text = text_of(starter)
    _check_experiment(text, starter)
    _check_models(starter)
    _write_new(file, text)
    quoted = shlex.quote(str(file))
    images = f"{starter.train.count:,} training and {starter.test.count:,} test images"
    print(f"wrote {file}: {starter.classes} classes, {images} at {starter.image_size} pixels")
    print(f"next: witness plan {quoted}   (what a run will do; once one has begun, also how long it will take)")
    print(f"      witness run {quoted}")
    return 0


def _check_place(file: Path) -> None:
    if file.exists():
        raise InputError(f"{file}: exists already, and `witness init` overwrites nothing; give another path")
    if not file.absolute().parent.is_dir():
        raise InputError(f"{file}: there is no folder {file.absolute().parent}; make it first")


def _write_new(file: Path, text: str) -> None:
    """Writes the file whole or not at all, and never over another one. Raises InputError."""
    try:
        with open(file, "x", encoding="utf-8") as new:
            try:
                new.write(text)
                new.flush()
            except OSError:
                file.unlink()
                raise
    except OSError as problem:
        raise InputError(f"{file}: cannot be written ({problem})") from problem


def _starter(options: argparse.Namespace) -> Starter:
    """Flags and answers, checked against the data and against each other."""
    missing = [f"--{name}" for name in QUESTIONS if not getattr(options, name)]
    if missing and not sys.stdin.isatty():
        flags = ", ".join(missing)
        raise InputError(f"these flags are missing: {flags}. On a terminal, `witness init` asks for what they say")
    train = _answer("train", options.train, lambda given: _look_at(given[0], options.kind))
    test = _answer("test", options.test, lambda given: _other_images(_look_at(given[0], options.kind), train))
    taken: dict[str, str] = {}
    source, *_ = _answer("source", options.source, lambda given: _new_models("source", given, taken))
    witnesses = _answer("witness", options.witness, lambda given: _new_models("witness", given, taken))
    targets = _answer("target", options.target, lambda given: _new_models("target", given, taken))
    return Starter(
        file=options.file,
        name=_name_after(options.file) if options.name is None else options.name,
        train=train,
        test=test,
        classes=_classes(options.classes, train, test),
        image_size=_size_for(train.side) if options.image_size is None else options.image_size,
        source=source,
        witnesses=witnesses,
        targets=targets,
    )


def _name_after(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", file.stem).lstrip("_.-")


def _size_for(side: int) -> int:
    return 32 if side <= SMALL_SIDE else 224


def _answer(name: str, given: str | list[str] | None, parse: Callable[[list[str]], Parsed]) -> Parsed:
    """What a flag says, or else the first answer on the terminal that can be used."""
    if given:
        try:
            return parse([given] if isinstance(given, str) else given)
        except InputError as problem:
            raise InputError(f"--{name}: {problem}") from problem
    while True:
        answer = input(f"{QUESTIONS[name]}: ").strip()
        words = answer.replace(",", " ").split() if name in ("witness", "target") else [answer]
        if not any(words):
            continue
        try:
            return parse(words)
        except InputError as problem:
            print(problem)


def _look_at(given: str, kind: Kind | None) -> Images:
    """Lists an image set and opens its first image. Raises InputError for what cannot be used as one."""
    from align_core.images import ImageSetConfig, open_image_set

    path = _given_path(given)
    kind = kind or _kind_of(path)
    label_file = _label_file_in(path) if kind == "folder" else None
    config = ImageSetConfig(kind=kind, path=str(path), labels=None if label_file is None else str(label_file))
    image_set = open_image_set(config, SMALL_SIDE)
    (ids, _), labels, refused = image_set.listing(), image_set.labels(), image_set.left_out().refused
    if kind == "folder" and not label_file and not labels.names:
        raise InputError(f"{path}: has no sub-folders; each class needs one, with its images in it")
    labels = labels.with_values(labels.values[[own not in refused for own in ids]])
    ids = [own for own in ids if own not in refused]
    if not ids:
        raise InputError(f"{path}: there is no image in it")
    if not labels.are_names and not 0 <= labels.values.min() <= labels.values.max() <= _LARGEST_LABEL:
        odd = int(labels.values.min()) if labels.values.min() < 0 else int(labels.values.max())
        raise InputError(f"{path}: has the label {odd}; labels are numbered from 0")
    if _count([labels]) < 2:
        only = f", {labels.names[0]}" if labels.names else ""
        raise InputError(f"{path}: has one class alone{only}; a classifier needs at least two")
    side = _side_of_first(image_set, path, ids)
    for note in image_set.notes():
        print(f"note: {path}: {note}", file=sys.stderr)
    return Images(path, kind, len(ids), labels, side, label_file)


def _kind_of(path: Path) -> Kind:
    """The kind of image set that a path shows. Raises InputError for a file that shows none."""
    if path.is_file():
        if (kind := _KINDS.get(path.suffix.lower())) is None:
            raise InputError(f"{path}: is neither a folder nor a file .npz or .parquet; say with --kind what it is")
        return kind
    return "parquet" if any(entry.suffix.lower() == ".parquet" for entry in _entries(path)) else "folder"


def _label_file_in(folder: Path) -> Path | None:
    """The one CSV file in a folder that has no sub-folders, so that nothing else can tell the classes."""
    entries = _entries(folder)
    tables = [entry for entry in entries if entry.suffix.lower() == ".csv"]
    return tables[0] if len(tables) == 1 and not any(entry.is_dir() for entry in entries) else None


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, without what is hidden; nothing where it is none. Raises InputError."""
    try:
        return [entry for entry in folder.iterdir() if entry.name[0] != "."] if folder.is_dir() else []
    except OSError as problem:
        raise InputError(f"{folder}: this folder cannot be listed ({problem.strerror})") from problem


def _given_path(given: str) -> Path:
    """A path as a user writes it. Raises InputError where it cannot stand in a YAML file, which is UTF-8."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{given!r}: this path is not UTF-8, and cannot stand in an experiment file; rename it"
        ) from None
    return Path(os.path.expanduser(given))  # not Path's, for which ./~name is ~name


def _side_of_first(image_set: "ImageSet", path: Path, ids: Sequence[str]) -> int:
    """Short side of the first image whose header can be read. Raises InputError where none can."""
    from align_core.images.decoding import BadImage

    for image_id in ids:
        try:
            _, header = image_set.undecoded(image_id)
            return min(header.width, header.height)
        except BadImage:
            continue  # an unreadable image is a matter for `data.on_bad_image`, when the experiment runs
    raise InputError(f"{path}: none of its {len(ids)} images can be opened")


def _other_images(test: Images, train: Images) -> Images:
    """The test images, if they can be those of an experiment with these training images. Raises InputError."""
    one, other = train.path.resolve(), test.path.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise InputError(
            f"{test.path}: shares images with the training images in {train.path}; training and test images must be "
            "disjoint, so give two folders or files"
        )
    alone, others = (set(a.labels.names) - set(b.labels.names) for a, b in ((train, test), (test, train)))
    if alone and others:
        raise InputError(
            f"{test.path}: its classes are not those of {train.path}: only one of them has {min(others)}, and only the "
            f"other {min(alone)}. A class needs the same name in both"
        )
    for one_path, other_path, names in ((test.path, train.path, alone), (train.path, test.path, others)):
        if names and train.labels.names and test.labels.names:
            print(f"note: {one_path} has no {', '.join(sorted(names)[:5])}, unlike {other_path}", file=sys.stderr)
    return test


def _count(sets: "Sequence[RawLabels]") -> int:
    """The number of classes that image sets have: in their schemas, of names, or the largest index plus one."""
    from align_core.images.classes import are_integers

    if ordered := [len(labels.names) for labels in sets if labels.is_ordered]:
        return max(ordered)
    if all(labels.are_names and not are_integers(labels.names) for labels in sets):
        return len({name for labels in sets for name in labels.names})
    return 1 + max(int(value) for labels in sets if are_integers(labels.names) for value in labels.values)


def _classes(given: int | None, train: Images, test: Images) -> int:
    """The number of classes: as given, else as counted. Raises InputError where the images do not agree with it."""
    from align_core.images.classes import class_list

    sets = {"train": train.labels, "test": test.labels}
    classes = _count(list(sets.values())) if given is None else given
    start = "" if given is None else f"--classes {given}: "
    try:
        known = class_list(sets, classes)
        indices = {role: known.indices(role, labels) for role, labels in sets.items()}
    except InputError as problem:
        raise InputError(f"{start}{problem}") from problem
    for images, values in zip((train, test), indices.values(), strict=True):
        if int(values.max()) >= classes:
            raise InputError(f"{start}{images.path} has labels up to {values.max()}, too many for {classes} classes")
    return classes


def _new_models(role: str, given: list[str], taken: dict[str, str]) -> list[Model]:
    """Models as they are asked for, none of which has another role already. Raises InputError; fills `taken`."""
    models, roles = [], dict(taken)
    for text in given:
        name, equals, weights = text.partition("=")
        is_file = weights and weights != "pretrained"
        model = Model(name.strip(), (str(_given_path(weights)) if is_file else weights) or None)
        if not model.key or (equals and model.weights is None):
            raise InputError(f"{text!r}: a model is written NAME, NAME=pretrained or NAME=PATH")
        if model.key in roles:
            raise InputError(
                f"{model.timm} is given twice: it is {roles[model.key]} already; the source, the witnesses and the "
                "targets are different models"
            )
        if is_file and not Path(str(model.weights)).is_file():
            raise InputError(f"{model.timm}: there is no file {model.weights} with its weights")
        roles[model.key] = f"a {role}" if role != "source" else "the source"
        models.append(model)
    taken.update(roles)
    return models


def path_in(file: Path, path: Path) -> str:
    """A path as `file` names it: relative to the file's folder, or absolute where they share nothing but the root.

    Raises InputError for a path with a `$`, which an experiment file takes for a variable of the environment.
    """
    folder, absolute = file.absolute().parent, path.absolute()
    if "$" in str(absolute):
        raise InputError(f"{path}: in an experiment file, $ begins the name of a variable; rename the file or folder")
    if Path(os.path.commonpath([folder, absolute])) == Path(folder.anchor):
        return str(absolute)
    relative = os.path.relpath(absolute, folder)
    # Without a separator a name could mean something else: a home folder, or a word such as `pretrained`.
    return relative if relative.startswith("..") else os.path.join(".", relative)


def _check_experiment(text: str, starter: Starter) -> None:
    """Loads the experiment as every command will. Raises InputError, which names the file."""
    from pipelines.experiment.config import load_experiment
    from pipelines.experiment.yaml_file import read_yaml

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "experiment.yaml"
        draft.write_text(text, encoding="utf-8")
        try:
            content = read_yaml(draft)
            load_experiment(draft)
        except InputError as problem:
            raise InputError(str(problem).replace(str(draft), str(starter.file))) from problem
    for role, images in (("train", starter.train), ("test", starter.test)):
        for key, path in (("path", images.path), ("labels", images.label_file)):
            if path is not None and content["data"][role][key] != path_in(starter.file, path):
                raise InputError(f"{path}: YAML does not keep every character of this name; rename it")


def _check_models(starter: Starter) -> None:
    """Whether timm has these models, and pretrained weights for these classes. Raises InputError."""
    import timm

    for model in starter.models:
        if ":" in model.timm:
            continue  # such as hf-hub:USER/MODEL, which only a download could tell
        if not timm.is_model(model.timm):
            close = difflib.get_close_matches(model.timm, timm.list_models(), n=1)
            mend = f"did you mean {close[0]!r}?" if close else "`timm.list_models()` in Python lists them"
            raise InputError(f"timm has no model {model.timm!r}; {mend}")
        if model.weights == "pretrained":
            weights = timm.get_pretrained_cfg(model.timm) if timm.is_model_pretrained(model.timm) else None
            if weights is None:
                raise InputError(f"timm has no pretrained weights for {model.timm}; give a file, as NAME=PATH")
            if weights.num_classes != starter.classes:
                raise InputError(
                    f"{model.timm}: its pretrained weights are for {weights.num_classes} classes, and the images have "
                    f"{starter.classes}; give weights for these classes, as NAME=PATH, or the name alone to train it"
                )
