"""The image sets of an experiment as a run sees them: what is found, what is said, what is refused."""

import os
import shutil
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from align_core.errors import InputError
from align_core.images import ImageSetConfig
from align_core.images.inspection import inspect_images
from align_core.images.manifest import Manifest
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.stages.inspect_images import manifests
from pipelines.stages.manifest_file import inspection_from_bytes, inspection_to_bytes
from pipelines.storage.store import Store

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write(path: Path, name: str, mode: str = "RGB", side: int = 8) -> None:
    """A picture of noise that no other path has."""
    rng = np.random.default_rng(zlib.crc32(f"{path.parent.name}/{name}".encode()))
    path = path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).convert(mode).save(path)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """The folders train and test with six images of each of ten classes."""
    for role in ("train", "test"):
        for name in NAMES:
            for number in range(6):
                write(tmp_path / role, f"{name}/{role}{number}.png")
    return tmp_path


def experiment(root: Path, classes: int | str = 10, other: dict[str, Any] | None = None, **data: Any) -> Experiment:
    folders = {role: {"kind": "folder", "path": str(root / role)} for role in ("train", "test")}
    for role in folders:
        folders[role] |= data.pop(role, {})
    model = {"factory": "nobody:net", "train": {}}
    return Experiment.model_validate(
        {
            "name": "images", "output": str(root / "out"),
            "data": {"classes": classes, "image_size": 8, **folders, **data},
            "models": {"a": model, "b": model, "c": other or model},
            "source": "a", "witnesses": ["b"], "targets": ["c"],
            "attacks": {"x": {"method": "fgsm", "eps": "8/255"}},
        }
    )  # fmt: skip


def found(root: Path, classes: int | str = 10, other: dict[str, Any] | None = None, **data: Any) -> dict[str, Manifest]:
    asked = experiment(root, classes, other, **data)
    return manifests(asked, Store(asked.output, asked.name), Progress(True))[0]


def by_class(manifest: Manifest) -> dict[str, set[int]]:
    """The indices that the images of each sub-folder have."""
    indices: dict[str, set[int]] = {}
    for image_id, label in zip(manifest.ids, manifest.labels.tolist(), strict=True):
        indices.setdefault(image_id.partition("/")[0], set()).add(label)
    return indices


class TestClasses:
    @pytest.mark.parametrize("lacking", [["bird"], ["airplane"], ["truck"], ["airplane", "cat", "ship"]])
    def test_a_class_without_test_images_shifts_no_label(self, sets: Path, lacking: list[str]) -> None:
        for name in lacking:
            shutil.rmtree(sets / "test" / name)
        manifest = found(sets)["test"]
        assert by_class(manifest) == {name: {NAMES.index(name)} for name in NAMES if name not in lacking}
        assert manifest.notes == (f"no image of {', '.join(lacking)}, which another image set has",)

    def test_a_class_without_training_images(self, sets: Path) -> None:
        shutil.rmtree(sets / "train" / "airplane")
        manifest = found(sets)["train"]
        assert by_class(manifest)["automobile"] == {1}
        assert manifest.notes == ("no image of airplane, which another image set has",)

    def test_a_class_under_another_name(self, sets: Path) -> None:
        (sets / "test" / "cat").rename(sets / "test" / "cats")
        with pytest.raises(
            InputError, match=r"only data.train has `cat` \(did you mean `cats`\?\), only data.test has"
        ):
            found(sets)

    def test_a_class_in_other_letters(self, sets: Path) -> None:
        (sets / "test" / "dog").rename(sets / "test" / "Dog")
        with pytest.raises(InputError, match=r"only data.train has `dog`"):
            found(sets)

    def test_sub_folders_that_are_numbers(self, sets: Path) -> None:
        for role in ("train", "test"):
            for number, name in enumerate([*NAMES, "x", "y"]):
                if name in NAMES:
                    (sets / role / name).rename(sets / role / str(number))
                write(sets / role, f"{number}/{role}_more.png")
        shutil.rmtree(sets / "test" / "2")
        assert by_class(found(sets, 12)["test"]) == {str(n): {n} for n in range(12) if n != 2}

    def test_numbers_from_one(self, sets: Path) -> None:
        for role in ("train", "test"):
            for number, name in enumerate(NAMES, start=1):
                (sets / role / name).rename(sets / role / str(number))
        with pytest.raises(
            InputError,
            match=r"10/train0.png has label 10; classes are numbered from 0: rename the folders, or give",
        ):
            found(sets)

    def test_a_file_of_names(self, sets: Path) -> None:
        order = [*reversed(NAMES), "unicorn"]
        (sets / "classes.txt").write_text("\n".join(order))
        manifest = found(sets, str(sets / "classes.txt"))["test"]
        assert by_class(manifest) == {name: {order.index(name)} for name in NAMES}
        assert experiment(sets, str(sets / "classes.txt")).data.classes_count == 11

    def test_names_beside_indices_need_a_file(self, sets: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
        np.savez(sets / "a.npz", images=images, labels=[0, 3, 5, 9])
        with pytest.raises(InputError, match=r"data.train has class names .*, and data.test has class indices"):
            found(sets, test={"kind": "npz", "path": str(sets / "a.npz")})
        (sets / "classes.txt").write_text("\n".join(NAMES))
        both = found(sets, str(sets / "classes.txt"), test={"kind": "npz", "path": str(sets / "a.npz")})
        assert both["test"].labels.tolist() == [0, 3, 5, 9]
        assert both["test"].notes == (
            "no image of automobile, bird, deer, frog, horse, ship, which another image set has",
        )

    def test_arrays_of_names(self, sets: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
        np.savez(sets / "a.npz", images=images, labels=np.array(["dog", "bird", "truck"]))
        assert found(sets, test={"kind": "npz", "path": str(sets / "a.npz")})["test"].labels.tolist() == [5, 2, 9]

    def test_names_in_a_csv(self, sets: Path) -> None:
        (sets / "labels.csv").write_text("path,label\ncat/test0.png,truck\ndog/test1.png,bird\n")
        assert found(sets, test={"labels": str(sets / "labels.csv")})["test"].labels.tolist() == [9, 2]

    @pytest.mark.parametrize("label", [10**12, -1, 10])
    def test_labels_out_of_range(self, sets: Path, label: int) -> None:
        (sets / "labels.csv").write_text(f"path,label\ncat/test0.png,3\ncat/test1.png,{label}\n")
        csv = {"labels": str(sets / "labels.csv")}
        with pytest.raises(
            InputError, match=rf"data.test: 1 labels lie outside 0 to 9: .*test1.png has label {label};"
        ):
            found(sets, test=csv, train={"kind": "digits", "path": None, "limit": 20})


class TestSelection:
    @pytest.mark.parametrize(
        ("settings", "note"),
        [
            ({"limit": 20}, "limit 20 keeps 4 of 10 classes; `sample: 20` draws from all"),
            ({"limit": 5}, "limit 5 keeps 1 of 10 classes; `sample: 5` draws from as many as it can"),
            ({"take": [30, 60]}, "take [30, 60] keeps 5 of 10 classes; `sample: 30` draws from all"),
            ({"take": [6, 50], "limit": 12}, "limit 12 keeps 2 of 10 classes; `sample: 12` draws from all"),
            ({"sample": 4}, "sample 4 keeps 4 of 10 classes"),
        ],
    )
    def test_a_selection_that_loses_classes_is_said(self, sets: Path, settings: dict[str, Any], note: str) -> None:
        assert found(sets, test=settings)["test"].notes == (note,)

    @pytest.mark.parametrize("settings", [{"limit": 55}, {"take": [5, 55]}, {"sample": 10}, {"sample": 20}])
    def test_a_selection_that_loses_none_is_not(self, sets: Path, settings: dict[str, Any]) -> None:
        assert found(sets, test=settings)["test"].notes == ()

    def test_a_sample_holds_every_class(self, sets: Path) -> None:
        manifest = found(sets, test={"sample": 20})["test"]
        assert Counter(manifest.labels.tolist()) == dict.fromkeys(range(10), 2)

    def test_the_seed_of_the_experiment_leaves_the_sample_as_it_is(self, sets: Path) -> None:
        asked = experiment(sets, test={"sample": 20})
        one, other = (
            manifests(asked.model_copy(update={"seed": seed}), Store(asked.output, "x"), Progress(True))[0][
                "test"
            ].digest
            for seed in (0, 5)
        )
        assert one == other
        assert found(sets, test={"sample": 20, "sample_seed": 5})["test"].digest != one

    def test_a_sample_of_more_than_there_are(self, sets: Path) -> None:
        manifest = found(sets, test={"sample": 100})["test"]
        assert manifest.notes == ("sample 100 is more than there are: all 60 images are used",)

    def test_a_class_that_is_missing_and_one_that_is_lost(self, sets: Path) -> None:
        shutil.rmtree(sets / "test" / "bird")
        assert found(sets, test={"take": [0, 48]})["test"].notes == (
            "take [0, 48] keeps 8 of 9 classes; `sample: 48` draws from all",
            "no image of bird, which another image set has",
        )


class TestColour:
    @pytest.mark.parametrize("grey", [["airplane/test0.png"], ["truck/test5.png", "cat/test0.png"]])
    def test_grey_images_in_a_set_of_colours_are_converted_and_counted(self, sets: Path, grey: list[str]) -> None:
        for name in grey:
            write(sets / "test", name, "L")
        manifest = found(sets)["test"]
        assert (len(manifest), manifest.shape) == (60, (3, 8, 8))
        assert manifest.notes == (f"{len(grey)} grey image{'s are' if len(grey) > 1 else ' is'} used as RGB",)

    def test_a_grey_set_beside_a_set_of_colours(self, sets: Path) -> None:
        for file in (sets / "test").rglob("*.png"):
            write(sets / "test", f"{file.parent.name}/{file.name}", "L")
        assert {role: one.shape[0] for role, one in found(sets).items()} == {"train": 3, "test": 3}
        assert found(sets)["test"].notes == ("60 grey images are used as RGB",)

    def test_sets_without_colour_have_one_channel(self, sets: Path) -> None:
        for file in sets.rglob("*.png"):
            write(file.parent.parent, f"{file.parent.name}/{file.name}", "L")
        assert {one.shape for one in found(sets).values()} == {(1, 8, 8)}
        assert {one.shape for one in found(sets, channels=3).values()} == {(3, 8, 8)}

    @pytest.mark.parametrize(
        ("model", "channels"),
        [
            ({"torchvision": "resnet18", "train": {}}, 3),
            ({"timm": "resnet18", "weights": "pretrained"}, 3),
            ({"timm": "resnet18", "weights": "pretrained", "args": {"in_chans": 1}}, 1),
            ({"factory": "m:net", "weights": "f", "mean": [0.5] * 3, "std": [0.5] * 3}, 3),
            ({"factory": "m:net", "weights": "f", "mean": [0.5], "std": [0.5]}, 1),
            ({"timm": "resnet18", "train": {}}, 1),
        ],
    )
    def test_a_model_that_takes_colours_gets_them_of_grey_sets(
        self, sets: Path, model: dict[str, Any], channels: int
    ) -> None:
        for file in sets.rglob("*.png"):
            write(file.parent.parent, f"{file.parent.name}/{file.name}", "L")
        manifest = found(sets, other=model)["test"]
        assert manifest.shape == (channels, 8, 8)
        assert manifest.notes == (("60 grey images are used as RGB",) if channels == 3 else ())
        assert found(sets, other=model, channels=1)["test"].shape == (1, 8, 8)

    def test_colour_can_be_left_out(self, sets: Path) -> None:
        write(sets / "test", "cat/test0.png", "L")
        manifest = found(sets, channels=1)["test"]
        assert (manifest.shape, manifest.notes) == ((1, 8, 8), ("59 coloured images are converted to grey",))


class TestOddFiles:
    @pytest.mark.parametrize("hidden", ["cat/.ipynb_checkpoints", "__MACOSX", "dog/deep/.git"])
    def test_hidden_folders_hold_no_images(self, sets: Path, hidden: str) -> None:
        for number in range(2):
            write(sets / "test", f"{hidden}/{number}.png")
        assert (len(found(sets)["test"]), found(sets)["test"].notes) == (60, ())

    def test_what_is_left_out_is_said(self, sets: Path) -> None:
        for name in ("cat/a.txt", "dog/b.txt", "cat/c.gif"):
            (sets / "test" / name).touch()
        write(sets / "test", "0.png")
        assert found(sets)["test"].notes == (
            "left out 3 files that are no images by their suffix: 2 .txt, 1 .gif",
            "left out 1 image outside any class folder",
        )

    @pytest.mark.parametrize("name", [b"cat/caf\xe9.png", b"dog/\xff\xfe.png", b"cat/\x80/0.png"])
    def test_a_name_that_is_not_utf8(self, sets: Path, name: bytes) -> None:
        file = os.fsencode(sets / "test") + b"/" + name
        os.makedirs(os.path.dirname(file), exist_ok=True)
        shutil.copy(sets / "test" / "cat" / "test0.png", file)
        said = (
            "data.test: 1 image is unreadable (" + name.decode("utf-8", "backslashreplace") + ": its name is not UTF-8"
        )
        with pytest.raises(InputError) as refusal:
            found(sets)
        assert str(refusal.value).startswith(said)
        manifest = found(sets, on_bad_image="skip")["test"]
        assert len(manifest) == 60
        assert manifest.notes[0].startswith("1 unreadable image is left out (")

    def test_duplicates(self, sets: Path) -> None:
        shutil.copy(sets / "test" / "cat" / "test0.png", sets / "train" / "dog" / "x.png")
        with pytest.raises(
            InputError, match=r"data.train and data.test overlap: 1 image in both.*\(dog/x.png is cat/te"
        ):
            found(sets)
        kept = found(sets, on_duplicate="skip")
        assert "dog/x.png" not in kept["train"].ids and "cat/test0.png" in kept["test"].ids


class TestStored:
    def test_what_was_found_is_read_again(self, sets: Path) -> None:
        (sets / "list.txt").write_text("cat/test0.png 0\ndog/test1.png 3\n")
        for config in (
            ImageSetConfig(kind="folder", path=str(sets / "test"), limit=20),
            ImageSetConfig(kind="folder", path=str(sets / "test"), labels=str(sets / "list.txt")),
            ImageSetConfig(kind="digits", sample=30),
        ):
            inspection = inspect_images(config, 8)
            again = inspection_from_bytes(inspection_to_bytes(inspection), config)
            assert again is not None
            for name, value in vars(inspection).items():
                assert str(getattr(again, name)) == str(value), name
            assert again.labels.values.dtype.kind == inspection.labels.values.dtype.kind

    def test_a_changed_list_of_names_is_noticed(self, sets: Path) -> None:
        """The form of the labels is said on every run, and what the numbers stand for is read again when it changes."""
        (sets / "classes.txt").write_text("\n".join(NAMES))
        (sets / "list.txt").write_text("cat/test0.png 1\ndog/test1.png 2\n")
        named = {"labels": str(sets / "list.txt"), "label_names": str(sets / "names.csv")}
        labels = []
        for one, two in (("ship", "cat"), ("frog", "cat")):
            (sets / "names.csv").write_text(f"number,name\n1,{one}\n2,{two}\n")
            asked = experiment(sets, str(sets / "classes.txt"), test=named)
            store = Store(asked.output, asked.name)
            for _ in range(2):
                manifest, unsaved = manifests(asked, store, Progress(True))
                labels.append([NAMES[label] for label in manifest["test"].labels])
                assert manifest["test"].notes[0].endswith("classes are numbers with the names in names.csv")
                for path, content in unsaved.items():
                    store.write(path, content)
            assert unsaved == {}
        assert labels == [["ship", "cat"]] * 2 + [["frog", "cat"]] * 2

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"{}"])
    def test_a_damaged_file_is_none(self, content: bytes) -> None:
        assert inspection_from_bytes(content, ImageSetConfig(kind="digits")) is None

    @pytest.mark.parametrize("about", [None, "{}", "[]", "no JSON", '{"are_names": true, "names": 1}'])
    def test_a_file_of_another_version_is_none(self, about: str | None) -> None:
        config = ImageSetConfig(kind="digits", limit=3)
        table = pq.read_table(pa.BufferReader(inspection_to_bytes(inspect_images(config, 8))))
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({} if about is None else {"about": about}), sink)
        assert inspection_from_bytes(bytes(sink.getvalue()), config) is None

    def test_it_is_said_again_and_a_new_file_is_noticed(self, sets: Path) -> None:
        (sets / "test" / "cat" / "a.txt").touch()
        asked = experiment(sets)
        store = Store(asked.output, asked.name)
        first, unsaved = manifests(asked, store, Progress(True))
        for path, content in unsaved.items():
            store.write(path, content)
        again, nothing = manifests(asked, store, Progress(True))
        assert nothing == {}
        assert again["test"].notes == first["test"].notes != ()
        assert again["test"].digest == first["test"].digest
        (sets / "test" / "cat" / "b.txt").touch()
        assert "left out 2 files" in manifests(asked, store, Progress(True))[0]["test"].notes[0]
