"""`witness init`: the file that it writes is loaded and run as it stands, and bad input writes nothing."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from align_core.model_config import ModelConfig, TrainConfig
from pipelines.cli import main
from pipelines.experiment.config import Experiment, load_experiment

PER_CLASS = 12
MODELS = ["--source", "test_vit", "--witness", "test_resnet", "--target", "test_convnext"]


def write_images(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), side: int = 20, seed: int = 0) -> Path:
    """Random images, brighter from class to class, so that a network can tell the classes apart; not quite square."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(PER_CLASS):
            pixels = rng.integers(0, 128, (side, side + 4, 3), dtype=np.uint8) + 127 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


def write_npz(file: Path, labels: list[int], side: int = 20, compressed: bool = False) -> Path:
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(file, images=images, labels=np.array(labels))
    return file


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two image sets; no terminal."""
    write_images(tmp_path / "photos" / "train", seed=1)
    write_images(tmp_path / "photos" / "test", seed=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return tmp_path


def init(*flags: str, images: bool = True, models: bool = True) -> int:
    given = ["--train", "photos/train", "--test", "photos/test"] if images else []
    return main(["init", *flags, *given, *(MODELS if models else [])])


def made(*flags: str, images: bool = True, models: bool = True) -> Experiment:
    """The experiment in the file that these flags write."""
    assert init(*flags, images=images, models=models) == 0
    return load_experiment(Path("experiment.yaml"))


def refused(capsys: pytest.CaptureFixture[str], *flags: str, images: bool = True, models: bool = True) -> str:
    """The message with which these flags are refused; nothing is written."""
    before = sorted(Path().rglob("*"))
    assert init(*flags, images=images, models=models) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return captured.err.removeprefix("witness: ").strip()


class TestFlags:
    def test_what_is_not_given_is_found_out(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = made()
        assert experiment.name == "experiment"
        assert (experiment.data.classes, experiment.data.image_size) == (2, 32)
        for role, config in experiment.image_sets().items():
            assert (config.kind, config.path) == ("folder", str(place / "photos" / role))
            assert (config.take, config.limit) == (None, None)
        assert (experiment.source, experiment.witnesses) == ("test_vit", ["test_resnet"])
        assert experiment.targets == ["test_convnext"]
        trained = TrainConfig(epochs=100, batch_size=32, lr=2e-3)
        assert experiment.models == {
            name: ModelConfig(timm=name, train=trained) for name in ("test_vit", "test_resnet", "test_convnext")
        }
        assert {name: round(attack.eps * 255) for name, attack in experiment.attacks.items()} == {"pgd": 8, "mi": 8}
        assert experiment.align.temperature == 16
        said = capsys.readouterr().out
        assert "wrote experiment.yaml: 2 classes, 24 training and 24 test images at 32 pixels" in said
        assert "witness plan experiment.yaml" in said and "witness run experiment.yaml" in said

    def test_every_section_is_explained(self) -> None:
        made()
        text = Path("experiment.yaml").read_text()
        blocks = text.split("\n\n")
        assert len(blocks) >= 6
        assert all("#" in block for block in blocks)
        assert max(map(len, text.splitlines())) <= 120
        assert "# * aligned_ensemble: " in text
        keys = set(yaml.safe_load(text))
        assert keys >= {"name", "data", "models", "source", "witnesses", "targets", "controls", "align", "attacks"}

    def test_name(self) -> None:
        assert made("--name", "other").name == "other"

    def test_the_file_and_its_name(self) -> None:
        assert init("my photos.yaml") == 0
        assert load_experiment(Path("my photos.yaml")).name == "my-photos"
        assert "witness run 'my photos.yaml'" in Path("my photos.yaml").read_text()

    def test_paths_are_relative_to_the_file(self, place: Path) -> None:
        (place / "experiments").mkdir()
        assert init("experiments/one.yaml") == 0
        content = yaml.safe_load(Path("experiments/one.yaml").read_text())
        assert content["data"]["train"]["path"] == "../photos/train"
        loaded = load_experiment(Path("experiments/one.yaml")).data
        assert Path(str(loaded.test.path)).resolve() == (place / "photos" / "test").resolve()

    def test_words_that_yaml_would_take_for_something_else(self, place: Path) -> None:
        odd = place / "a: b, {c} #1" / "1e-3"
        odd.parent.mkdir()
        (place / "photos" / "train").rename(odd)
        experiment = made("--name", "1e-3", "--train", str(odd), "--test", "photos/test", images=False)
        assert (experiment.name, experiment.data.train.path) == ("1e-3", str(odd))

    def test_image_size(self) -> None:
        assert made("--image-size", "64").data.image_size == 64

    @pytest.mark.parametrize(("side", "size", "eps"), [(64, 32, 8), (65, 224, 16)])
    def test_the_size_follows_from_the_first_image(self, place: Path, side: int, size: int, eps: int) -> None:
        write_images(place / "large", side=side)
        experiment = made("--train", "large", "--test", "photos/test", images=False)
        assert experiment.data.image_size == size
        assert round(experiment.attacks["pgd"].eps * 255) == eps

    @pytest.mark.parametrize("compressed", [False, True])
    def test_npz(self, place: Path, compressed: bool) -> None:
        write_npz(place / "train.npz", [0, 1, 2, 3], side=65, compressed=compressed)
        write_npz(place / "test.npz", [0, 1, 1])
        experiment = made("--train", "train.npz", "--test", "test.npz", images=False)
        assert (experiment.data.train.kind, experiment.data.train.path) == ("npz", str(place / "train.npz"))
        assert (experiment.data.classes, experiment.data.image_size) == (4, 224)

    def test_kind(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, labels in (("train", [0, 1, 1]), ("test", [1, 0])):
            write_npz(place / "arrays.npz", labels).rename(place / f"{name}.arrays")
        images = ("--train", "train.arrays", "--test", "test.arrays")
        assert "is neither a folder nor an .npz file" in refused(capsys, *images, images=False)
        assert made(*images, "--kind", "npz", images=False).data.test.kind == "npz"

    def test_classes_of_npz_may_be_more_than_its_labels(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_npz(place / "train.npz", [0, 1, 2])
        write_npz(place / "test.npz", [0, 1, 4])
        images = ("--train", "train.npz", "--test", "test.npz")
        found = refused(capsys, *images, "--classes", "4", images=False)
        assert found == "--classes 4: test.npz has labels up to 4, too many for 4 classes"
        assert made(*images, "--classes", "9", images=False).data.classes == 9

    def test_weights_from_timm_and_from_files(self, place: Path) -> None:
        (place / "w").mkdir()
        (place / "w" / "net.safetensors").write_bytes(b"")
        write_npz(place / "train.npz", [0, 999])
        write_npz(place / "test.npz", [0, 1])
        experiment = made(
            "--train", "train.npz", "--test", "test.npz", "--source", "resnet18=w/net.safetensors",
            "--witness", "resnet50.a1_in1k=pretrained", "--witness", "test_vit", "--target", "resnet34",
            "--target", "test_vit2",
            images=False, models=False,
        )  # fmt: skip
        assert list(experiment.models) == ["resnet18", "resnet50-a1_in1k", "test_vit", "resnet34", "test_vit2"]
        assert experiment.models["resnet18"].weights == str(place / "w" / "net.safetensors")
        assert experiment.models["resnet50-a1_in1k"] == ModelConfig(timm="resnet50.a1_in1k", weights="pretrained")
        assert experiment.witnesses == ["resnet50-a1_in1k", "test_vit"]
        assert experiment.targets == ["resnet34", "test_vit2"]
        assert experiment.models["resnet34"].train is not None


class TestRefusals:
    def test_a_file_that_exists_is_left_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("experiment.yaml").write_text("mine")
        assert refused(capsys).startswith("experiment.yaml: exists already")
        assert Path("experiment.yaml").read_text() == "mine"

    def test_a_folder_that_does_not_exist_for_the_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "there is no folder" in refused(capsys, "nowhere/experiment.yaml")

    def test_the_flags_that_are_missing_are_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = refused(capsys, "--train", "photos/train", "--source", "test_vit", images=False, models=False)
        assert found.startswith("these flags are missing: --test, --witness, --target.")

    @pytest.mark.parametrize(
        ("train", "test", "message"),
        [
            ("photos/nothing", "photos/test", "--train: photos/nothing: there is no such file or folder"),
            ("photos/train", "nothing.npz", "--test: nothing.npz: there is no such file or folder"),
            ("photos/train", "photos/train", "training and test images must be disjoint"),
            ("photos/train", "photos/../photos/train", "training and test images must be disjoint"),
            ("photos/train", "photos", "training and test images must be disjoint"),
            ("photos", "photos/test", "training and test images must be disjoint"),
            ("photos/train/cat", "photos/test", "photos/train/cat: has no sub-folders; each class needs one"),
            ("one", "photos/test", "--train: one: has one class alone, cat; a classifier needs at least two"),
            ("one.npz", "photos/test", "--train: one.npz: has one class alone; a classifier needs at least two"),
            ("three", "photos/test", "its sub-folders are not those of three: only one of them has bird"),
            ("three.npz", "photos/test", "three.npz has labels up to 2, too many for 2 classes"),
            ("minus.npz", "photos/test", "minus.npz: has the label -1; labels are numbered from 0"),
            ("empty", "photos/test", "empty: there is no image in it"),
            ("broken", "photos/test", "broken: none of its 2 images can be opened"),
            ("text.npz", "photos/test", "text.npz: cannot be read as npz"),
        ],
    )
    def test_images(self, place: Path, train: str, test: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        write_images(place / "one", ("cat",))
        write_images(place / "three", ("bird", "cat", "dog"))
        write_npz(place / "one.npz", [0, 0])
        write_npz(place / "three.npz", [0, 1, 2])
        write_npz(place / "minus.npz", [-1, 1])
        (place / "text.npz").write_text("no archive")
        for name, file in (("empty", "notes.txt"), ("broken", "0.png")):
            for label in ("cat", "dog"):
                (place / name / label).mkdir(parents=True)
                (place / name / label / file).write_text("no image")
        assert message in refused(capsys, "--train", train, "--test", test, images=False)

    @pytest.mark.parametrize("count", ["0", "1", "3"])
    def test_classes_that_are_not_those_of_the_sub_folders(
        self, count: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = refused(capsys, "--classes", count)
        assert found.startswith(f"--classes {count}: photos/train has 2 sub-folders, not {count}.")

    @pytest.mark.parametrize(
        ("models", "message"),
        [
            (["test_vit", "test_vit", "test_resnet"], "--witness: test_vit is given twice: it is the source already"),
            (["test_vit", "test_resnet", "test_resnet"], "--target: test_resnet is given twice: it is a witness"),
            (["test_vit", "test_resnet", "test_vi"], "timm has no model 'test_vi'; did you mean 'test_vit'?"),
            (["test_vit", "test_resnet", "zzzzzzz"], "`timm.list_models()` in Python lists them"),
            (["test_vit=w.pt", "test_resnet", "test_vit2"], "--source: test_vit: there is no file w.pt with"),
            (["test_vit=", "test_resnet", "test_vit2"], "--source: 'test_vit=': a model is written NAME,"),
            (["test_vit=pretrained", "test_resnet", "test_vit2"], "are for 1000 classes, and the images have 2"),
            (["vit_tiny_patch16_18x2_224=pretrained", "test_resnet", "test_vit2"], "timm has no"),
        ],
    )  # fmt: skip
    def test_models(self, models: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        source, witness, target = models
        flags = ("--source", source, "--witness", witness, "--target", target)
        assert message in refused(capsys, *flags, models=False)

    def test_a_target_that_is_given_twice(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "test_convnext is given twice: it is a target already" in refused(capsys, "--target", "test_convnext")

    def test_what_the_experiment_itself_refuses(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert refused(capsys, "--name", "../up").startswith("experiment.yaml: name: ")
        assert refused(capsys, "--name", "").startswith("experiment.yaml: name: ")
        for size in ("0", "9999"):
            assert refused(capsys, "--image-size", size).startswith("experiment.yaml: data.image_size: ")

    def test_a_folder_in_which_nothing_can_be_written(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "cannot be written (" in refused(capsys, "/proc/experiment.yaml")

    def test_a_disk_that_is_full(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(io.StringIO):
            def write(self, text: str) -> int:
                raise OSError(28, "no space left")

        def opened(file: Path, *_: object, **__: object) -> Full:
            file.touch(exist_ok=False)
            return Full()

        monkeypatch.setattr("pipelines.cli.starter.open", opened, raising=False)
        assert "cannot be written ([Errno 28]" in refused(capsys)

    def test_a_path_with_a_dollar_sign(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (place / "photos").rename(place / "$HOME")
        found = refused(capsys, "--train", "$HOME/train", "--test", "$HOME/test", images=False)
        assert found.startswith("$HOME/train: in an experiment file, $ begins the name of a variable")


class TestQuestions:
    @pytest.fixture
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> "Terminal":
        return Terminal(monkeypatch)

    def test_what_is_missing_is_asked(self, terminal: "Terminal") -> None:
        terminal.answers = ["photos/train", "photos/test", "test_vit", "test_resnet, test_vit2", "test_vit3 test_vit4"]
        experiment = made(images=False, models=False)
        assert (experiment.source, experiment.witnesses) == ("test_vit", ["test_resnet", "test_vit2"])
        assert experiment.targets == ["test_vit3", "test_vit4"]
        assert [question.split()[0] for question in terminal.asked] == [
            "Training", "Test", "Source,", "Witnesses,", "Targets,",
        ]  # fmt: skip

    def test_what_is_given_is_not_asked(self, terminal: "Terminal") -> None:
        terminal.answers = ["test_vit2"]
        flags = ("--source", "test_vit", "--witness", "test_resnet")
        assert made(*flags, models=False).targets == ["test_vit2"]
        assert len(terminal.asked) == 1

    def test_it_asks_again_after_an_answer_that_cannot_be_used(
        self, terminal: "Terminal", capsys: pytest.CaptureFixture[str]
    ) -> None:
        terminal.answers = ["", "photos/nothing", "photos/train", "photos/train", "photos/test"]
        assert made(images=False).data.classes == 2
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "photos/nothing: there is no such file or folder"
        assert "must be disjoint" in said[1]
        assert len(terminal.asked) == 5

    def test_the_end_of_the_answers(self, terminal: "Terminal", capsys: pytest.CaptureFixture[str]) -> None:
        terminal.answers = ["test_vit"]
        assert "not answered to the end; nothing was written" in refused(capsys, models=False)


class Terminal:
    """A person at a terminal, who gives these answers and then ends the input."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[str] = []
        self.asked: list[str] = []
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("builtins.input", self._answer)

    def _answer(self, question: str) -> str:
        self.asked.append(question)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)


def test_its_plan_and_status_before_anything_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    made()
    capsys.readouterr()
    assert main(["plan", "experiment.yaml", "--json"]) == 0
    missing = json.loads(capsys.readouterr().out)["missing_networks"]
    assert set(missing) == {"test_vit", "test_resnet", "test_convnext", "aligned", "label_only"}
    assert main(["status", "experiment.yaml"]) == 0
    header, *rows, last = capsys.readouterr().out.splitlines()
    assert {row.split()[0] for row in rows} >= {"train", "align", "evaluate"}
    assert all(" missing" in row for row in rows)
    assert header.split() == ["stage", "of", "state", "chunks"]
    assert " done" not in last


def test_what_it_writes_runs_to_the_end(ray_cluster: None, place: Path) -> None:
    assert init() == 0
    small = ["align.epochs=1", "attacks.pgd.steps=1", "attacks.mi.steps=2", "controls=[witness]"]
    small += [f"models.{name}.train.epochs=2" for name in ("test_vit", "test_resnet", "test_convnext")]
    flags = [part for setting in small for part in ("--set", setting)]
    assert main(["run", "experiment.yaml", *flags]) == 0
    report = place / "runs" / "experiment" / "report"
    rows = (report / "transfer.csv").read_text().splitlines()
    assert len(rows) > 6
    assert rows[0].startswith("surrogate,attack,target,")
    assert main(["status", "experiment.yaml", *flags]) == 0


class TestPaths:
    """What is written names what was given, whatever its name is."""

    @pytest.mark.parametrize("name", ["~", "~nobody", "pretrained", "a b", "é", "no", "#1", "x: y", "'q'"])
    def test_an_odd_name_is_kept(self, place: Path, name: str) -> None:
        (place / "photos" / "train").rename(place / name)
        flags = ["--train", f"./{name}", "--test", "photos/test", *MODELS]
        assert main(["init", *flags]) == 0
        assert load_experiment(Path("experiment.yaml")).data.train.path == str(place / name)

    def test_a_folder_of_an_unknown_user_is_a_name(self, place: Path) -> None:
        (place / "photos" / "train").rename(place / "~nobody-here")
        assert main(["init", "--train", "~nobody-here", "--test", "photos/test", *MODELS]) == 0
        assert load_experiment(Path("experiment.yaml")).data.train.path == str(place / "~nobody-here")

    def test_weights_in_a_file_called_pretrained_are_a_file(self, place: Path) -> None:
        (place / "pretrained").write_bytes(b"not looked at before the experiment is planned")
        flags = ["--source", "test_vit=pretrained-weights", *MODELS[2:]]
        (place / "pretrained").rename(place / "pretrained-weights")
        assert init(*flags, models=False) == 0
        (model,) = (m for m in load_experiment(Path("experiment.yaml")).models.values() if m.weights)
        assert model.weights == str(place / "pretrained-weights")

    @pytest.mark.parametrize(
        ("name", "message"), [("n\x85l", "YAML does not keep every character of this name"), ("\udcff", "is not UTF-8")]
    )
    def test_a_name_that_a_file_cannot_hold_is_refused(
        self, place: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
    ) -> None:
        (place / "photos" / "train").rename(place / name)
        flags = ["--train", name, "--test", "photos/test", *MODELS]
        assert main(["init", *flags]) == 2
        assert message in capsys.readouterr().err
        assert not Path("experiment.yaml").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_class_whose_folder_cannot_be_read_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "photos" / "train" / "cat").chmod(0)
    assert "this class's folder cannot be read" in refused(capsys)


def test_images_without_pixels_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("zero.npz", images=np.zeros((8, 0, 0, 3), np.uint8), labels=np.arange(8) % 2)
    found = refused(capsys, "--train", "zero.npz", "--test", "photos/test", images=False)
    assert "its images have no pixels" in found


def test_a_disk_that_refuses_has_nothing_to_resume(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "photos/train")

    monkeypatch.setattr("pipelines.cli.starter._look_at", broken)
    assert init() == 1
    assert capsys.readouterr().err == "witness: [Errno 13] Permission denied: 'photos/train'\n"
