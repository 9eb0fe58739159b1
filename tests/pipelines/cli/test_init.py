"""`witness init`: the file that it writes is loaded and run as it stands; on a terminal it asks."""

import json
from pathlib import Path

import pytest
import yaml
from empty_store import put_empty_store
from starter_file import PER_CLASS, init, made, refused, write_images, write_npz, write_parquet

from align_core.model_config import ModelConfig, TrainConfig
from pipelines.cli import main
from pipelines.experiment.config import load_experiment

pytestmark = pytest.mark.usefixtures("place")


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

    def test_parquet(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A folder of files whose schemas name the classes, one without an image, and a file of names."""
        write_parquet(place / "train/train-00000-of-00002.parquet", [2, 0, None], ("bird", "cat", "dog"), side=65)
        write_parquet(place / "test.parquet", ["bird", "dog"])
        experiment = made("--train", "train", "--test", "test.parquet", images=False)
        kinds = [(config.kind, config.path) for config in experiment.image_sets().values()]
        assert kinds == [("parquet", str(place / "train")), ("parquet", str(place / "test.parquet"))]
        assert (experiment.data.classes, experiment.data.image_size) == (3, 224)
        said = capsys.readouterr()
        assert "3 classes, 2 training and 2 test images" in said.out
        assert "note: train: 1 of the 2 files train-*-of-00002.parquet are there" in said.err

    def test_a_label_file_in_a_folder_without_sub_folders(self, place: Path) -> None:
        for role in ("train", "test"):
            folder = place / "flat" / role
            write_images(folder, seed=len(role))
            lines = [f"{name}{number}.png,{name}" for name in ("cat", "dog") for number in range(PER_CLASS)]
            for line in lines:
                name = line.partition(".")[0]
                (folder / name[:3] / f"{name[3:]}.png").rename(folder / f"{name}.png")
            for name in ("cat", "dog"):
                (folder / name).rmdir()
            (folder / "of these.csv").write_text("\n".join(["path,label", *lines]))
        experiment = made("--train", "flat/train", "--test", "flat/test", images=False)
        assert experiment.data.test.labels == str(place / "flat" / "test" / "of these.csv")
        assert (experiment.data.test.kind, experiment.data.classes) == ("folder", 2)

    def test_sets_of_two_kinds_are_both_explained(self, place: Path) -> None:
        write_parquet(place / "test.parquet", ["cat", "dog"])
        made("--train", "photos/train", "--test", "test.parquet", images=False)
        text = Path("experiment.yaml").read_text()
        assert "A folder has a sub-folder per class" in text and "Parquet files have the columns" in text
        assert max(map(len, text.splitlines())) <= 120

    def test_kind(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, labels in (("train", [0, 1, 1]), ("test", [1, 0])):
            write_npz(place / "arrays.npz", labels).rename(place / f"{name}.arrays")
        images = ("--train", "train.arrays", "--test", "test.arrays")
        assert "is neither a folder nor a file .npz or .parquet" in refused(capsys, *images, images=False)
        assert made(*images, "--kind", "npz", images=False).data.test.kind == "npz"

    def test_classes_of_npz_may_be_more_than_its_labels(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_npz(place / "train.npz", [0, 1, 2])
        write_npz(place / "test.npz", [0, 1, 4])
        images = ("--train", "train.npz", "--test", "test.npz")
        found = refused(capsys, *images, "--classes", "4", images=False)
        assert found == "--classes 4: test.npz has labels up to 4, too many for 4 classes"
        assert made(*images, "--classes", "9", images=False).data.classes == 9

    def test_a_class_without_test_images_is_one_of_the_classes(
        self, place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_images(place / "three", ("bird", "cat", "dog"), seed=1)
        experiment = made("--train", "three", "--test", "photos/test", images=False)
        assert experiment.data.classes == 3
        assert "note: photos/test has no bird, unlike three" in capsys.readouterr().err

    def test_sub_folders_that_are_numbers_are_indices(self, place: Path) -> None:
        names = tuple(str(number) for number in range(12))
        write_images(place / "numbers", names, seed=1)
        write_images(place / "others", names[:10], seed=2)
        assert made("--train", "numbers", "--test", "others", images=False).data.classes == 12

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

    @pytest.mark.parametrize(("name", "size"), [("resnet10t", 176), ("vit_tiny_patch16_224", None)])
    def test_weights_from_a_file_that_may_have_been_trained_at_another_size(
        self, place: Path, name: str, size: int | None
    ) -> None:
        """A comment says so, and where, unless the network is built for one size."""
        (place / "net.safetensors").write_bytes(b"")
        made("--source", f"{name}=net.safetensors", "--witness", "test_resnet", "--target", "test_vit", models=False)
        lines = Path("experiment.yaml").read_text().splitlines()
        after = lines[next(number for number, line in enumerate(lines) if line.startswith(f"  {name}: ")) + 1]
        said = f"    # images are resized to {size}; for weights that were trained at 32 px, add input_size: 32"
        assert (after == said) is (size is not None)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_it_writes_runs_to_the_end(ray_cluster: None, place: Path) -> None:
    assert init() == 0
    put_empty_store(place / "runs")
    small = ["align.epochs=1", "attacks.pgd.steps=1", "attacks.mi.steps=2", "controls=[witness]"]
    small += [f"models.{name}.train.epochs=2" for name in ("test_vit", "test_resnet", "test_convnext")]
    flags = [part for setting in small for part in ("--set", setting)]
    assert main(["run", "experiment.yaml", *flags]) == 0
    report = place / "runs" / "experiment" / "report"
    rows = (report / "transfer.csv").read_text().splitlines()
    assert len(rows) > 6
    assert rows[0].startswith("surrogate,attack,target,")
    assert main(["status", "experiment.yaml", *flags]) == 0
