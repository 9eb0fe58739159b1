"""Files that lie in folders of images and are none, or that would hang, exhaust memory, or mislead."""

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_sets import folder_of, listed, manifest_of, noise, parquet, png
from PIL import EpsImagePlugin, Image

from align_core.errors import InputError
from align_core.images import Fit, ImageSetConfig, open_image_set
from align_core.images.decoding import BadImage, decode
from align_core.images.inspection import Inspection, inspect_images

GOOD = png(noise(8, 8, 3))


def found(root: Path, files: dict[str, bytes] | None = None) -> Inspection:
    return inspect_images(ImageSetConfig(kind="folder", path=str(folder_of(root, files or {}))), 8)


def thin(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes: rows of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (1 + 3 * width) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_postscript_under_another_name_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL gives it to Ghostscript, and so would let a file of an image set run a program with a long list of faults."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    eps = io.BytesIO()
    Image.new("RGB", (8, 8)).save(eps, "EPS")
    inspection = found(tmp_path / "set", {"cat/0.png": eps.getvalue(), "cat/1.png": GOOD})
    assert [(image_id, "cannot identify" in why) for image_id, why in inspection.unreadable] == [("cat/0.png", True)]
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "PPM", "BMP", "GIF", "JPEG2000"])
def test_any_usual_format_is_told_by_its_content(kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 9), (200, 100, 50)).save(content, kind)
    assert decode(content).image.size == (8, 9)


class TestFolder:
    @pytest.mark.parametrize(
        "hidden",
        [
            "cat/.ipynb_checkpoints/0-checkpoint.png", "cat/deep/.cache/0.png", "cat/._0.png", "cat/.0.png",
            "__MACOSX/cat/0.png", "cat/__MACOSX/0.png", ".git/0.png",
        ],
    )  # fmt: skip
    def test_what_is_hidden_is_skipped_wherever_it_lies(self, tmp_path: Path, hidden: str) -> None:
        inspection = found(tmp_path, {"cat/0.png": GOOD, hidden: GOOD})
        assert inspection.ids == ["cat/0.png"]
        assert inspection.labels.names == ("cat",)
        assert (inspection.suffixes, inspection.outside) == ({}, 0)

    def test_a_set_whose_own_path_is_hidden(self, tmp_path: Path) -> None:
        assert found(tmp_path / ".cache" / "__MACOSX", {"cat/0.png": GOOD}).ids == ["cat/0.png"]

    def test_a_csv_may_name_what_is_hidden(self, tmp_path: Path) -> None:
        folder_of(tmp_path, {".x/0.png": GOOD, "labels.csv": b"path,label\n.x/0.png,0\n"})
        config = ImageSetConfig(kind="folder", path=str(tmp_path), labels=str(tmp_path / "labels.csv"))
        assert listed(config) == ([".x/0.png"], [0])

    def test_files_of_other_suffixes_and_images_outside_the_classes_are_counted(self, tmp_path: Path) -> None:
        files = {"cat/0.png": GOOD, "cat/a.txt": b"", "cat/x/b.TXT": b"", "cat/c.gif": b"", "cat/README": b""}
        inspection = found(tmp_path, files | {"top.png": GOOD, "labels.csv": b""})
        assert inspection.ids == ["cat/0.png"]
        assert inspection.suffixes == {".txt": 2, ".gif": 1, "without a suffix": 1}
        assert inspection.outside == 1

    def test_more_suffixes_are_images(self, tmp_path: Path) -> None:
        def saved(name: str, **options: str) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(noise(8, 8)).convert("1" if name == "pbm" else "L").save(buffer, **options)
            return buffer.getvalue()

        files = {f"cat/0.{name}": saved(name, format="PPM") for name in ("pgm", "pbm", "pnm")}
        inspection = found(tmp_path, files | {"cat/0.jfif": saved("jfif", format="JPEG")})
        assert inspection.ids == ["cat/0.jfif", "cat/0.pbm", "cat/0.pgm", "cat/0.pnm"]

    def test_links_that_lead_in_a_circle(self, tmp_path: Path) -> None:
        folder_of(tmp_path, {"cat/0.png": GOOD})
        (tmp_path / "cat" / "round").symlink_to(tmp_path, target_is_directory=True)
        inspection = found(tmp_path)
        assert inspection.ids == ["cat/0.png"]
        assert inspection.suffixes == {"linked folder": 1}

    @pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xff/0.png", b"sub/\x80.PNG"])
    def test_a_name_that_is_not_utf8_is_an_unreadable_image(self, tmp_path: Path, name: bytes) -> None:
        folder_of(tmp_path, {"cat/0.png": GOOD})
        file = os.fsencode(tmp_path / "cat") + b"/" + name
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as odd:
            odd.write(GOOD)
        inspection = found(tmp_path)
        assert inspection.ids == ["cat/0.png"]
        ((image_id, reason),) = inspection.unreadable
        assert image_id == "cat/" + name.decode("utf-8", "backslashreplace")
        assert reason == "its name is not UTF-8; rename it"
        image_id.encode()

    @pytest.mark.parametrize("kind", ["FIFO", "socket", "folder", "link that leads nowhere"])
    def test_what_is_no_file_is_never_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        folder_of(tmp_path, {"cat/0.png": GOOD})
        monkeypatch.chdir(tmp_path / "cat")  # the path of a socket may have 107 bytes
        if kind == "FIFO":
            os.mkfifo("odd.png")
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind("odd.png")
        elif kind == "folder":
            os.mkdir("odd.png")
        else:
            os.symlink("nowhere", "odd.png")
        inspection = found(tmp_path)
        assert inspection.ids == ["cat/0.png"]
        ((image_id, reason),) = inspection.unreadable
        assert image_id == "cat/odd.png" and kind in reason

    def test_a_device_is_never_opened(self, tmp_path: Path) -> None:
        folder_of(tmp_path, {"cat/0.png": GOOD})
        (tmp_path / "cat" / "zero.png").symlink_to("/dev/zero")
        assert found(tmp_path).unreadable == [("cat/zero.png", "cannot be decoded (it is no file but a device)")]

    @pytest.mark.parametrize("kind", ["npz", "parquet"])
    def test_a_set_that_is_a_fifo(self, tmp_path: Path, kind: str) -> None:
        os.mkfifo(tmp_path / "odd")
        with pytest.raises(InputError, match="odd: it is no file but a FIFO"):
            listed(ImageSetConfig(kind=kind, path=str(tmp_path / "odd")))  # type: ignore[arg-type]

    def test_labels_that_are_a_fifo(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "labels.csv")
        with pytest.raises(InputError, match="a FIFO"):
            listed(ImageSetConfig(kind="folder", path=str(tmp_path), labels=str(tmp_path / "labels.csv")))


class TestSizes:
    @pytest.mark.parametrize(("width", "height"), [(1, 60_000), (60_000, 1), (2, 201), (4000, 39)])
    def test_an_elongated_picture_is_refused_before_it_is_decoded(
        self, tmp_path: Path, width: int, height: int
    ) -> None:
        inspection = found(tmp_path, {"cat/0.png": GOOD, "cat/thin.png": thin(width, height)})
        assert inspection.ids == ["cat/0.png"]
        assert inspection.unreadable[0][1].startswith(f"it is {width} x {height} pixels; one side may be at most 100")

    def test_a_hundred_times_as_long_is_not_too_long(self, tmp_path: Path) -> None:
        assert len(found(tmp_path, {"cat/0.png": thin(2, 200)})) == 1

    def test_what_would_be_too_large_after_resizing(self, tmp_path: Path) -> None:
        config = ImageSetConfig(kind="folder", path=str(folder_of(tmp_path, {"cat/0.png": thin(2, 200)})))
        with pytest.raises(BadImage, match="more than 178,956,970 after its short side is resized to 4096"):
            open_image_set(config, 4096).read("cat/0.png")

    def test_a_bomb(self, tmp_path: Path) -> None:
        header = struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 20_000, 10_000, 1, 24, 0, 0, 0, 0, 0, 0)
        ((_, reason),) = found(tmp_path, {"cat/0.bmp": b"BM" + header}).unreadable
        assert "bomb" in reason or "may have at most" in reason

    def test_arrays(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=noise(2, 1, 300, 3), labels=[0, 1])
        inspection = inspect_images(ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz")), 8)
        assert [reason.split(";")[0] for _, reason in inspection.unreadable] == ["it is 300 x 1 pixels"] * 2


class TestFacts:
    def test_what_is_done_to_an_image_is_counted(self, tmp_path: Path) -> None:
        def saved(form: str, picture: Image.Image, **options: object) -> bytes:
            buffer = io.BytesIO()
            picture.save(buffer, form, **options)
            return buffer.getvalue()

        pictures = [Image.fromarray(noise(8, 8, 3, seed=seed)) for seed in range(3)]
        turned = Image.Exif()
        turned[0x0112] = 6
        alpha, palette = Image.fromarray(noise(8, 8, 4)), pictures[0].convert("P")
        files = {
            "c/alpha.png": saved("PNG", alpha),
            "c/grey_alpha.png": saved("PNG", alpha.convert("LA")),
            "c/palette.png": saved("PNG", palette, transparency=0),
            "c/frames.tif": saved("TIFF", pictures[0], save_all=True, append_images=pictures[1:]),
            "c/one.tif": saved("TIFF", pictures[1]),
            "c/turned.jpg": saved("JPEG", pictures[0], exif=turned),
            "c/straight.jpg": saved("JPEG", pictures[1], exif=Image.Exif()),
            "c/small.png": png(noise(4, 9, 3)),
            "c/large.png": png(noise(9, 12, 3)),
        }
        inspection = found(tmp_path, files)
        assert inspection.unreadable == []
        assert inspection.facts == {"alpha": 3, "frames": 1, "orientation": 1, "enlarged": 1, "reduced": 1}
        assert [i for i, grey in zip(inspection.ids, inspection.is_grey, strict=True) if grey] == ["c/grey_alpha.png"]

    def test_what_is_stored_is_what_is_used(self, tmp_path: Path) -> None:
        first = noise(8, 8, 3)
        buffer = io.BytesIO()
        Image.fromarray(first).save(
            buffer, "TIFF", save_all=True, append_images=[Image.fromarray(noise(8, 8, 3, seed=1))]
        )
        config = ImageSetConfig(kind="folder", path=str(folder_of(tmp_path, {"c/0.tif": buffer.getvalue()})))
        assert np.array_equal(open_image_set(config, Fit(8)).read("c/0.tif"), first.transpose(2, 0, 1))


class TestParquet:
    def test_what_other_programs_leave_in_a_folder_is_skipped(self, tmp_path: Path) -> None:
        for name in ("part-0.parquet", "_metadata.parquet", "._part-0.parquet", ".tmp/x.parquet", "__MACOSX/y.parquet"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            parquet(tmp_path / name, image=[GOOD], label=[0])
        (tmp_path / "_SUCCESS").touch()
        assert listed(ImageSetConfig(kind="parquet", path=str(tmp_path))) == (["00000"], [0])

    def test_files_of_other_suffixes_are_counted(self, tmp_path: Path) -> None:
        for number, name in enumerate(("a.parquet", "b.PARQUET", "c.pq", "d.parquet.gz", "e.parq", "f.pq")):
            parquet(tmp_path / name, image=[GOOD], label=[number])
        config = ImageSetConfig(kind="parquet", path=str(tmp_path))
        assert listed(config) == (["00000", "00001"], [0, 1])
        said = "left out 4 files that are no Parquet files by their suffix: 2 .pq, 1 .gz, 1 .parq"
        assert said in manifest_of(config).notes
        for name in ("a.parquet", "b.PARQUET"):
            (tmp_path / name).unlink()
        with pytest.raises(InputError, match=r"no file of the suffix \.parquet, but 1 \.gz, 1 \.parq, 2 \.pq"):
            listed(config)

    def test_a_folder_called_as_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "images.parquet").mkdir()
        parquet(tmp_path / "images.parquet" / "part-0.parquet", image=[GOOD], label=[0])
        assert listed(ImageSetConfig(kind="parquet", path=str(tmp_path))) == (["00000"], [0])

    def test_a_fifo_among_the_files(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "0.parquet")
        with pytest.raises(InputError, match="a FIFO"):
            listed(ImageSetConfig(kind="parquet", path=str(tmp_path)))

    def test_rows_that_lack_something_are_unreadable_images(self, tmp_path: Path) -> None:
        image = pa.array([{"bytes": GOOD}, {"bytes": GOOD}, {"bytes": None}, None, {"bytes": GOOD}])
        config = parquet(tmp_path / "a.parquet", image=image, label=[1, None, 1, 1, 0], image_id=[*"abcd", None])
        inspection = inspect_images(config, 8)
        assert (inspection.ids, inspection.labels.values.tolist()) == (["a"], [1])
        assert inspection.unreadable == [
            ("b", "its `label` is null"), ("c", "its `bytes` are null"), ("d", "it is null"),
            ("row 00004", "its `image_id` is null"),
        ]  # fmt: skip

    def test_names_with_a_null(self, tmp_path: Path) -> None:
        inspection = inspect_images(parquet(tmp_path / "a.parquet", image=[GOOD] * 3, label=["b", None, "a"]), 8)
        assert (inspection.labels.values.tolist(), inspection.labels.names) == (["b", "a"], ("a", "b"))
        assert inspection.unreadable == [("00001", "its `label` is null")]

    @pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
    def test_names_of_every_type(self, tmp_path: Path, kind: pa.DataType) -> None:
        config = parquet(tmp_path / "a.parquet", image=[GOOD] * 2, label=pa.array(["b", "a"], kind))
        assert listed(config)[1] == ["b", "a"]

    def test_class_label_of_hugging_face(self, tmp_path: Path) -> None:
        about = '{"info": {"features": {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}}}'
        table = pa.table({"image": [GOOD], "label": [1]}).replace_schema_metadata({"huggingface": about})
        pq.write_table(table, tmp_path / "a.parquet")
        labels = open_image_set(ImageSetConfig(kind="parquet", path=str(tmp_path / "a.parquet")), 8).labels()
        assert (labels.values.tolist(), labels.names, labels.is_ordered) == ([1], ("dog", "cat"), True)
        parquet(tmp_path / "b.parquet", image=[GOOD], label=[1])
        with pytest.raises(InputError, match="name different classes in their schemas"):
            open_image_set(ImageSetConfig(kind="parquet", path=str(tmp_path)), 8).labels()

    @pytest.mark.parametrize(
        "about", [b"", b"[]", b'{"info": null}', b'{"info": {"features": {"label": {}}}}', b"\xff"]
    )
    def test_metadata_that_says_nothing(self, tmp_path: Path, about: bytes) -> None:
        table = pa.table({"image": [GOOD], "label": [1]}).replace_schema_metadata({"huggingface": about})
        pq.write_table(table, tmp_path / "a.parquet")
        labels = open_image_set(ImageSetConfig(kind="parquet", path=str(tmp_path / "a.parquet")), 8).labels()
        assert (labels.values.tolist(), labels.names, labels.is_ordered) == ([1], (), False)
