"""Bad input is refused before any work, with exit code 2 and a message that names the key; nothing is written."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from bad_matrices import MATRICES
from bad_settings import GONE, SETTINGS, bad
from hand_made import hand_made
from PIL import Image
from safetensors.torch import load_file

from pipelines.cli import main


class MakesFolder:
    """Makes a folder when it is unpickled: code that must never run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a valid experiment, and the files that make it invalid."""
    folder = tmp_path_factory.mktemp("inputs")
    hand_made(folder).file.rename(folder / "good.yaml")
    near, seer = (load_file(folder / f"{name}.safetensors") for name in ("near", "seer"))
    torch.save({"state_dict": near}, folder / "near_again.pt")
    torch.save({f"module.{name}": value for name, value in seer.items()}, folder / "seer_again.pt")
    torch.save({**near, "more": MakesFolder(folder / "marker")}, folder / "pickled.pt")
    (folder / "truncated.safetensors").write_bytes((folder / "near.safetensors").read_bytes()[:-40])
    with np.load(folder / "images.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    np.savez(folder / "again.npz", images=images[7:9], labels=labels[7:9])
    np.savez(folder / "coloured.npz", images=np.repeat(255 - images[:4], 3, axis=3), labels=labels[:4])
    np.savez(folder / "labelled_from_1.npz", images=255 - images[:4], labels=labels[:4] + 1)
    np.savez(folder / "empty.npz", images=images[:0], labels=labels[:0])
    for name in ("cat/0.png", "dog/1.png"):
        (folder / "photos" / name).parent.mkdir(parents=True)
        Image.fromarray(255 - images[len(name), :, :, 0]).save(folder / "photos" / name)
    (folder / "photos" / "dog" / "broken.png").write_bytes(b"\x89PNG")
    (folder / "unimportable.py").write_text("import a_module_that_nobody_has\n")
    (folder / "not_python.py").write_text("def (\n")
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inputs)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns the experiment with other values under some dotted keys."""
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
        if value is GONE:
            del section[last]
    return content


def again(name: str, args: dict[str, int] | None = None) -> dict[str, Any]:
    """A model whose weights are a copy of another's."""
    return {"factory": "hand_made_networks:linear", "args": args or {}, "weights": name}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
EMPTY = {"kind": "npz", "path": "empty.npz"}
PHOTOS = {"kind": "folder", "path": "photos"}

CASES = [
    # The file
    bad("no such file", "nowhere.yaml: there is no such file", None, "nowhere.yaml"),
    bad("a folder", "photos: cannot be read: it is a folder", None, "photos"),
    bad("not text", ("pickled.pt", "cannot be read"), None, "pickled.pt"),
    bad("not YAML", ("experiment.yaml, line 3: expected ',' or ']'",), "name: a\ndata: [1, 2\n"),
    bad("empty", ("experiment.yaml", "must hold keys and values"), "# nothing yet\n"),
    bad("a list", ("experiment.yaml", "must hold keys and values, and holds list"), "- name: a\n"),
    bad("key twice", ("experiment.yaml, line 3", "the key 'name' is given twice"), "name: a\nseed: 1\nname: b\n"),
    bad("key twice, nested", ("line 3", "'steps' is given twice"), "a:\n  steps: 1\n  steps: 2\n"),
    bad("two names are as near", "'sma'; did you mean 'saa' or 'sam' or 'swa", {"variants": {"x": {"refine": "sma"}}}),
    bad("unknown key", "atacks: unknown key; did you mean 'attacks'?", {"atacks": {}}),
    bad("unknown key, nested", "data.train.tak: unknown key; did you mean 'take'?", {"data.train.tak": [0, 4]}),
    bad("key of a section", "align.layer_decay: unknown key; did you mean align.optimizer.layer_decay?", {
        "align.layer_decay": 0.9,
    }),
    bad("key of a variant's section", "variants.v.align.lr: unknown key; did you mean variants.v.align.optimizer.lr?", {
        "variants.v.align.lr": 0.9,
    }),
    bad("key of the section above", "align.optimizer.epochs: unknown key; did you mean align.epochs?", {
        "align.optimizer.epochs": 2,
    }),
    bad("key of two sections", "epochs: unknown key; did you mean align.epochs?", {"epochs": 2}),
    bad("unknown key in capitals", "TARGETS: unknown key; did you mean 'targets'?", {"TARGETS": ["twin"]}),
    bad("unknown key of an attack", "attacks.mi.step_size: unknown key; did", {"attacks.mi.step_size": "1/255"}),
    bad("unknown key, deep", "align.optimizer.learning_rate: unknown key;", {"align.optimizer.learning_rate": 1}),
    bad("nothing like it", "zzz: unknown key; there are: align, attacks,", {"zzz": 1}),
    bad("required key", "data.test: this key is required", {"data.test": GONE}),
    bad("two at once", ("zzz: unknown key", "seed: must be a whole"), {"zzz": 1, "seed": "x"}),
    bad("a list for a mapping", "models: must hold keys and values", {"models": ["near"]}),
    bad("a word for a list", "targets: must be a list, in square brackets, not the text 'twin'", {"targets": "twin"}),
    bad("no number", ("experiment.yaml: data.classes: ", "ten: cannot be read"), {"data.classes": "ten"}),
    bad("not finite", "align.temperature: must be a finite number of", {"align.temperature": float("nan")}),
    bad("negative seed", "seed: Input should be greater than or equal to 0", {"seed": -1}),
    bad("no workers", "compute.workers: Input should be greater than or equal to 1", {"compute.workers": 0}),
    # The command line
    bad("--set without a value", "--set seed: write key.path=value", None, "--set", "seed"),
    bad("--set without a key", "--set =3: write key.path=value", None, "--set", "=3"),
    bad("--set below a value", "--set name.x=3: name holds no keys", None, "--set", "name.x=3"),
    bad("--set that is not YAML", "--set targets=[twin", None, "--set", "targets=[twin"),
    bad("--set of an unknown key", "sed: unknown key; did you mean 'seed'?", None, "--set", "sed=3"),
    bad("--json", "sed: unknown key", {"sed": 3}, "--json"),
    # Names and roles
    bad("name that is a path", ("name: '../x' is no name", "use letters, digits"), {"name": "../x"}),
    bad("absolute name", "name: '/x' is no name", {"name": "/x"}),
    bad("name of an attack", "attacks.a/b: 'a/b' is no name", {"attacks": {"a/b": {"method": "pgd", "eps": "4/255"}}}),
    *(
        bad(f"no such model: {role}", f"{role}: there is no model 'nearr'; did you mean 'near'?", {role: name})
        for role, name in [
            ("source", "nearr"),
            ("witnesses", ["nearr"]),
            ("targets", ["twin", "nearr"]),
            ("validation_targets", ["nearr"]),
            ("variants.v.source", "nearr"),
            ("variants.v.witnesses", ["nearr"]),
        ]
    ),
    bad("no target", "targets: List should have at least 1 item", {"targets": []}),
    bad("no witness of a variant", "variants.v.witnesses: must name at least one", {"variants.v.witnesses": []}),
    bad("named twice", "targets: twin is named twice", {"targets": ["twin", "twin"]}),
    bad("target = source", ("targets: near is named in source too", "cannot see"), {"targets": ["near"]}),
    bad("target = witness", "targets: seer is named in witnesses too", {"targets": ["twin", "seer"]}),
    bad("target = a variant's source", "targets: twin is named in variants.v.source", {"variants.v.source": "twin"}),
    bad(
        "target = a variant's witness", "targets: twin is named in variants.v.wit", {"variants.v.witnesses": ["twin"]}
    ),
    bad("validation target = source", "validation_targets: near is named in source", {"validation_targets": ["near"]}),
    bad("validation target = target", "validation_targets: twin is in targets too", {"validation_targets": ["twin"]}),
    bad(
        "target = source by weights", "targets: copy has the same weights as near; a target must be a model of its own",
        {"models.copy": again("near_again.pt", {"width": 2}), "targets": ["copy"]},
    ),
    bad(
        "target = witness by weights", "targets: copy has the same weights as seer",
        {"models.copy": again("seer_again.pt", {"width": 5}), "targets": ["twin", "copy"]},
    ),
    bad(
        "target = a variant's source by weights", "targets: copy has the same weights as near",
        {
            "models.copy": again("near_again.pt", {"width": 2}), "targets": ["copy"],
            "source": "other", "variants.v.source": "near",
        },
    ),
    bad(
        "validation target = target by weights", "validation_targets: copy has the same weights as near",
        {
            "models.copy": again("near_again.pt", {"width": 2}), "validation_targets": ["copy"],
            "source": "other", "targets": ["near"],
        },
    ),
    *(
        bad(
            f"reserved: {name}", (f"models.{name}: this name is reserved", "choose another"),
            {f"models.{name}": again("near.safetensors", {"width": 2})},
        )
        for name in ("aligned", "label_only", "witness-seer", "source-near")
    ),
    bad("reserved for a variant", "variants.ensemble: this name is reserved", {"variants.ensemble": {}}),
    bad("variant named as a model", "variants.twin: a model has this name", {"variants.twin": {}}),
    bad("unknown control", ("controls.0: must be 'label_only',", "; did you mean 'label_only'?"), {
        "controls": ["label_onli"],
    }),
    bad("witness is the source", "witnesses: near is the source too", {"witnesses": ["near"]}),
    # Images
    bad("missing images", ("data.train: ", "nowhere.npz: there is no such file"), {"data.train.path": "nowhere.npz"}),
    bad("unset variable", ("WITNESS_UNSET is not set", "head of the"), {"data.train.path": "$WITNESS_UNSET/a"}),
    bad("no image set", ("data.test: ", "cannot be read as npz"), {"data.test.path": "near.safetensors"}),
    bad("empty image set", ("data.train: ", "empty.npz: the image set is empty"), {"data.train": EMPTY}),
    bad("past the end", ("data.train: ", "`take` goes to 90, but there are 16"), {"data.train.take": [0, 90]}),
    bad("take of nothing", "data.train: `take` is a half-open range", {"data.train.take": [4, 4]}),
    bad("overlapping ranges", ("data.train and data.test overlap: 2 images", "disjoint"), {"data.train.take": [0, 6]}),
    bad(
        "same pixels in another file", ("data.validation and data.test overlap: 2 images", "00000 is 00007"),
        {"data.validation": {"kind": "npz", "path": "again.npz"}},
    ),
    bad(
        "labels out of range", ("data.train: 1 labels lie outside 0 to 2: image 00002 has label 3", "data.classes"),
        {"data.train": {"kind": "npz", "path": "labelled_from_1.npz"}},
    ),
    bad(
        "grey and colour", "models.near: cannot take images of (3, 8, 8)",
        {"data.train": {"kind": "npz", "path": "coloured.npz"}},
    ),
    bad(
        "unreadable image", ("data.validation: 1 image is unreadable (dog/broken.png: ", "data.on_bad_image: skip"),
        {"data.validation": PHOTOS},
    ),
    bad("no readable image", "data.validation: no image of this set can be read", {
        "data.validation": {**PHOTOS, "take": [2, 3]}, "data.on_bad_image": "skip",
    }),
    # Models and their weights
    bad("classes", ("models.near: returns (1, 3) for one image, not (1, 5)", "data.classes (5)"), {"data.classes": 5}),
    bad("missing weights", ("models.near: ", "no such weights file"), {"models.near.weights": "nowhere.pt"}),
    bad("cut weights", ("models.near: ", "is it truncated?"), {"models.near.weights": "truncated.safetensors"}),
    bad("code in weights", ("models.near: ", "never unpickles", "state_dict()"), {"models.near.weights": "pickled.pt"}),
    bad("another's weights", ("models.near: ", "do not fit the model"), {"models.near.weights": "seer.safetensors"}),
    bad("no weights", "models.near: either `weights` or `train` is needed", {"models.near.weights": GONE}),
    bad("two kinds of model", "models.near: exactly one of timm, torchvision,", {"models.near.timm": "resnet18"}),
    bad("normalisation", "models.near: mean and std are for 3 channels, the images have 1", {
        "models.near.mean": [0, 0, 0], "models.near.std": [1, 1, 1], "data.channels": 1,
    }),
    bad("normalisation of colours", "models.near: cannot take images of (3, 8, 8) (C, H, W)", {
        "models.near.mean": [0, 0, 0], "models.near.std": [1, 1, 1],
    }),
    bad("a model of colours", "It does take images of 1 channel: is data.channels: 1 meant?", {
        "models.seer.mean": [0, 0, 0], "models.seer.std": [1, 1, 1],
    }),
    bad("crop", "data: resize: 7 is below image_size (8)", {"data.resize": 7}),
    bad("interpolation", "data.interpolation: must be 'bicubic' or 'bilinear'", {"data.interpolation": "box"}),
    bad("image size", "models.near: cannot take images of (1, 9, 9) (C, H, W)", {"data.image_size": 9}),
    bad("no module", "factory gone: no module 'gone' beside the experiment", {"models.near.factory": "gone:net"}),
    bad("no such factory", "hand_made_networks:net: module", {"models.near.factory": "hand_made_networks:net"}),
    bad("module that fails", "'a_module_that_nobody_has'", {"models.near.factory": "unimportable:net"}),
    bad("no factory", "a factory must be written as module:callable, not 'linear'", {"models.near.factory": "linear"}),
    bad("arguments", "unexpected keyword argument 'depth'", {"models.near.args": {"depth": 3}}),
    bad("factory that fails", "linear: calling it raises RuntimeError: Trying to create", {
        "models.near.args": {"width": -1},
    }),
    bad("module of no Python", "not_python.py, line 1: not valid Python (", {"models.near.factory": "not_python:net"}),
    bad("input size", "models.near: input_size must be at least 1, not 0", {"models.near.input_size": 0}),
    bad("unknown timm name", "models.near: timm: resnet51: RuntimeError: Unknown model", {
        "models.near": {"timm": "resnet51", "weights": "near.safetensors"},
    }),
    bad("unknown torchvision name", "models.near: torchvision: there is no image classifier 'resnet51'", {
        "models.near": {"torchvision": "resnet51", "weights": "near.safetensors"},
    }),
    bad("no aligned model", ("models.near: ", "card.json: there is no such"), {"models.near": {"aligned": "photos"}}),
    *SETTINGS,
    *MATRICES,
    # YAML that would take endless time or memory, or that says something else than it seems to
    bad("alias bomb", "with its aliases this is more than 100,000 values", BOMB),
    bad("alias of itself", "line 2: what this anchor names contains itself", "name: a\nmodels: &a {b: *a}\n"),
    bad("3,000 levels", "more than 50 levels are nested here", "name: " + "[" * 3000 + "]" * 3000 + "\n"),
    bad("5,000 digits", ("line 2: 99999", "is too large a number"), "name: a\nseed: " + "9" * 5000 + "\n"),
    bad("1e400", "1e400 is too large a number", "name: a\nseed: 1e400\n"),
    bad("beyond 64 bits", "9223372036854775808 is too large", "seed: 9223372036854775808\n"),
    bad("NUL", "line 2: the sign U+0000 is not allowed", "name: a\noutput: a\0b\n"),
    bad("escaped NUL", "this text holds a sign that no name or path can have", 'output: "a\\0b"\n'),
    bad("tab", "line 2: a tab stands here", "data:\n\tclasses: 3\n"),
    bad("far too long", "is longer than 262,144 bytes", "# " + "x" * 300_000),
    bad("without end", "/dev/zero: is longer than", None, "/dev/zero"),
    bad("base 8", "YAML reads 010 in another base", "seed: 010\n"),
    bad("base 60", "YAML reads 1:30 in another base", "seed: 1:30\n"),
    bad("Python's objects", "the tag !!python/object/apply:os", "a: !!python/object/apply:os.getcwd []\n"),
    bad("a set", "the tag !!set is not known here", "targets: !!set {twin}\n"),
    bad("--set of an alias bomb", "what this anchor names contains itself", None, "--set", "models=&a [*a]"),
    bad("--set of 3,000 levels", "more than 50 levels", None, "--set", "models=" + "[" * 3000),
    bad("--set of 5,000 digits", "is too large a number", None, "--set", "seed=" + "9" * 5000),
    bad("number as an attack", "the key 1000.0 is read as a number; put it in", "attacks:\n  1000.0: {}\n"),
    bad("number as a model", "the key 50 is read as a number; put it in quotes: '50'", "models: {50: {timm: a}}\n"),
    bad("a name that is no", "the key no is read as yes or no; put it in quotes: 'no'", "models: {no: {timm: a}}\n"),
    bad("number in a list", "targets.0: must be text, not the number 50; put it in quotes: '50'", {"targets": [50]}),
    bad("a list as key", "a key must be a word", "? [a, b]\n: 1\n"),
    # Values of another type
    bad("true for a number", "align.temperature: must be a number, not true", {"align.temperature": True}),
    bad("true for a count", "data.test.limit: must be a whole number, not true", {"data.test.limit": True}),
    bad("true for eps", "attacks.mi: eps, step: true is not a pixel fraction such as 4/255", {"attacks.mi.eps": True}),
    bad("quoted number", "seed: must be a whole number, not the text '0'; leave the quotes out", {"seed": "0"}),
    bad("quoted float", "align.weight: must be a number, not the text '0.5'; leave the", {"align.weight": "0.5"}),
    bad("quoted steps", "attacks.mi.steps: must be a whole number, not the text", {"attacks.mi.steps": "4"}),
    bad("half a step", "attacks.mi.steps: must be a whole number, not the number 2.5", {"attacks.mi.steps": 2.5}),
    bad("yes for a flag", "align.augment.flip: must be true or false, not the number 1", {"align.augment.flip": 1}),
    bad("number for text", "source: must be text, not the number 3", {"source": 3}),
    bad("word for a word", "source: must be text, not false; put the word in quotes", {"source": False}),
    bad("text for a range", "data.train.take: must be a list, in square brackets", {"data.train.take": "0-4"}),
    bad("type in a variant", "v.align.epochs: must be a whole number, not true", {"variants.v.align.epochs": True}),
    # Preprocessing
    bad("mean of 0 to 255", ("models.near: mean is of pixels in [0, 1], not 0 to 255", "did you mean 0.485?"), {
        "models.near.mean": [123.675], "models.near.std": [1.0],
    }),
    bad("std of 0 to 255", "models.near: std is of pixels in [0, 1], not 0 to 255", {
        "models.near.mean": [0.5], "models.near.std": [58.4],
    }),
    bad("negative mean", "models.near: mean is of pixels in [0, 1] and is subtracted, so it cannot be -0.5", {
        "models.near.mean": [-0.5], "models.near.std": [0.5],
    }),
    bad("two channels", "models.near: mean and std must have a value for each channel, 1 or 3, not 2 and 2", {
        "models.near.mean": [0, 0], "models.near.std": [1, 1],
    }),
    # Names that name one thing twice
    bad("control twice", "controls: witness is named twice", {"controls": ["witness", "witness"]}),
    bad("target twice in a group", "groups.all: twin is named twice", {"groups": {"all": ["twin", "twin"]}}),
    bad("group of a model that is no target", "groups.all: 'seer' is not among the targets", {
        "groups": {"all": ["seer"]},
    }),
    bad("group of nothing", "groups.all: must name at least one target", {"groups": {"all": []}}),
    *(
        bad(f"group named {name}", f"groups.{name}: the tables have this name for", {"groups": {name: ["twin"]}})
        for name in ("Same_Family", "cross-family", "mean", "all_targets", "Attack")
    ),
    bad("witness twice", "witnesses: seer is named twice", {"witnesses": ["seer", "seer"]}),
    bad("witness of a variant twice", "v.witnesses: seer is named twice", {"variants.v.witnesses": ["seer", "seer"]}),
    bad("attacks that differ in capitals", "attacks.PGD: differs from pgd in capitals alone", {
        "attacks.PGD": {"method": "pgd", "eps": "4/255"},
    }),
    bad("models that differ in capitals", "models.Near: differs from near in capitals alone", {
        "models.Near": again("near.safetensors", {"width": 2}),
    }),
    bad("variant that differs from a model", "variants.Near: differs from near in capitals", {"variants.Near": {}}),
    bad("reserved in capitals", "models.Aligned: this name is reserved", {
        "models.Aligned": again("near.safetensors", {"width": 2}),
    }),
    *(
        bad(f"attack named {name}", f"attacks.{name}: this name is", {f"attacks.{name}": {"method": "pgd", "eps": 1}})
        for name in ("mean", "All")
    ),
    bad("attack named (mean)", "'(mean)' is no name here", {"attacks.(mean)": {"method": "pgd", "eps": "4/255"}}),
    bad("MLflow's folder in capitals", "name: MLartifacts is MLflow's own", {"name": "MLartifacts"}),
    bad("no model at all", "source: there is no model 'near'; there are none", {"models": {}}),
    # Output and tracking
    bad("output below a file", ("output: ", "images.npz is a file; name a"), None, "--output", "images.npz/below"),
    bad("unwritable output", ("output: /proc cannot be written", "--output"), {"output": "/proc/witness"}),
    bad("a question mark in output", "would end at the `?`; choose a folder without", None, "--output", "out?x=1"),
    bad("a percent sign in output", "would have a letter for `%` and digits; choose", None, "--output", "out%20b"),
    bad("object store, no tracking", "tracking: must be given where `output` is an object", {"output": "s3://bucket/x"}),
    bad("unknown store", "output: nowhere://x: ", {"output": "nowhere://x", "tracking": "sqlite:///mlflow.db"}),
]  # fmt: skip


LARGEST_GROWTH = 500 << 20  # bytes; what bad input asks for is never allocated


def most_memory() -> int:
    """The largest size that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(("message", "changes", "arguments"), CASES)
def test_bad_input_is_refused_with_exit_code_2_and_nothing_written(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], message: Any, changes: Any, arguments: Any
) -> None:
    file, *options = arguments if arguments and not arguments[0].startswith("-") else ("experiment.yaml", *arguments)
    good = yaml.safe_load((inputs / "good.yaml").read_text()) | {"output": str(tmp_path / "out")}
    text = changes if isinstance(changes, str) else yaml.safe_dump(changed(good, changes), sort_keys=False)
    (inputs / "experiment.yaml").write_text(text)
    before, memory, start = sorted(inputs.rglob("*")), most_memory(), time.monotonic()

    assert main(["run", file, *options]) == 2

    assert most_memory() - memory < LARGEST_GROWTH and time.monotonic() - start < 60
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "witness: " in captured.err and "Traceback" not in captured.err
    assert all(part in captured.err for part in message), captured.err
    assert sorted(inputs.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_the_experiment_that_the_cases_change_is_valid(inputs: Path, tmp_path: Path) -> None:
    assert main(["status", "good.yaml", "--output", str(tmp_path / "out")]) == 0


def test_the_code_in_the_weights_works_when_it_is_unpickled(inputs: Path) -> None:
    """Otherwise the case in which the weights are refused would prove nothing."""
    assert not (inputs / "marker").exists()
    torch.load(inputs / "pickled.pt", weights_only=False)
    assert (inputs / "marker").is_dir()
    (inputs / "marker").rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1"])
def test_a_cluster_that_cannot_be_reached(address: str, inputs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "run", "good.yaml", "--output", str(tmp_path / "out")]
    run = subprocess.run([*command, "--address", address], capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 2, run.stderr
    assert f"no Ray cluster could be reached at {address}" in run.stderr
    assert "Traceback" not in run.stderr and run.stdout == ""
    assert not list(tmp_path.iterdir())
