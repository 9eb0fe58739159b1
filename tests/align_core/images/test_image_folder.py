"""Image sets in folders, with a sub-folder per class or with labels from a CSV file."""

from pathlib import Path

import numpy as np
import pytest
from image_sets import folder_of, listed, noise, png

from align_core.errors import InputError
from align_core.images import ImageSetConfig, open_image_set
from align_core.images.decoding import BadImage


class TestFolder:
    def test_sub_folders_are_classes_and_ids_are_paths(self, tmp_path: Path) -> None:
        images = {"dog/b.png": noise(8, 8, 3), "cat/z.png": noise(8, 8, 3, seed=1), "dog/a/1.PNG": noise(8, 8, 3)}
        root = folder_of(tmp_path, {name: png(pixels) for name, pixels in images.items()})
        folder_of(root, {"dog/notes.txt": b"no image", ".cache/x.png": b"", "readme.md": b""})
        config = ImageSetConfig(kind="folder", path=str(root))
        assert listed(config) == (["cat/z.png", "dog/a/1.PNG", "dog/b.png"], ["cat", "dog", "dog"])
        for name, pixels in images.items():
            assert np.array_equal(open_image_set(config, 8).read(name), pixels.transpose(2, 0, 1))

    def by_csv(self, tmp_path: Path, text: str | bytes) -> ImageSetConfig:
        root = folder_of(tmp_path / "images", {"x.png": png(noise(8, 8, 3)), "deep/a.png": png(noise(8, 8, 3))})
        (tmp_path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ImageSetConfig(kind="folder", path=str(root), labels=str(tmp_path / "labels.csv"))

    @pytest.mark.parametrize(
        "text",
        [
            "path,label\nx.png,7\ndeep/a.png,3\n",
            "label,source,path\r\n7,web,x.png\r\n3,,./deep//a.png\r\n",
            b"\xef\xbb\xbfpath,label\nx.png,7\ndeep/a.png,3\n",
        ],
        ids=["plain", "other columns", "byte order mark of a spreadsheet"],
    )
    def test_labels_from_csv(self, tmp_path: Path, text: str | bytes) -> None:
        config = self.by_csv(tmp_path, text)
        assert listed(config) == (["deep/a.png", "x.png"], [3, 7])
        assert open_image_set(config, 8).read("deep/a.png").shape == (3, 8, 8)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("path,label\n../secret.png,1\n", "../secret.png leads out of"),
            ("path,label\ndeep/../../secret.png,1\n", "secret.png leads out of"),
            ("path,label\n/etc/secret.png,1\n", "/etc/secret.png leads out of"),
            ("path,label\nx.png,1\nx.png,2\n", "listed twice"),
            ("path,label\nx.png,1\n./x.png,2\n", "listed twice"),
            ("file,label\nx.png,1\n", "needs the columns `path` and `label`"),
            ("path,class\nx.png,1\n", "needs the columns `path` and `label`"),
            ("path,label\nx.png,1.0\n", "line 2: the label '1.0' is neither a class index nor a class name"),
            ("path,label\nx.png,1\ndeep/a.png,nan\n", "line 3: the label 'nan' is neither"),
            ("path,label\nx.png,\n", "line 2: the label '' is neither"),
            ("path,label\nx.png,1e400\n", "line 2: the label '1e400' is neither"),
            ("path,label\nx.png,99999999999999999999\n", "image x.png has the label 99999999999999999999"),
            ("label,path\n1\n", "line 2: ends before the column `path`"),
            (b"path,label\n\xff.png,1\n", "cannot be read as a file of UTF-8 text .*; save it as UTF-8"),
            ("path,label\nx.png,1\n".encode("utf-16"), r"UTF-8 text \(it is UTF-16\); save it as UTF-8"),
        ],
    )
    def test_csv_that_is_refused(self, tmp_path: Path, text: str | bytes, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint) as refusal:
            listed(self.by_csv(tmp_path, text))
        assert "labels.csv" in str(refusal.value)

    def test_csv_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nowhere\.csv"):
            listed(ImageSetConfig(kind="folder", path=str(tmp_path), labels=str(tmp_path / "nowhere.csv")))

    def test_csv_that_lies_in_the_folder_of_the_images(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path / "flat", {"labels.csv": b"path,label\n"})
        complaint = f"{tmp_path}/labels.csv: there is no such file, but there is {root}/labels.csv; .* flat/labels.csv$"
        with pytest.raises(InputError, match=complaint):
            listed(ImageSetConfig(kind="folder", path=str(root), labels=str(tmp_path / "labels.csv")))

    @pytest.mark.parametrize(
        ("others", "candidate"),
        [
            ({}, ""),
            ({"notes.txt": b"", "labels.CSV": b"", "empty/readme.md": b""}, r" \(is that .*flat/labels.CSV\?\)"),
        ],
    )
    def test_images_without_class_folders(self, tmp_path: Path, others: dict[str, bytes], candidate: str) -> None:
        root = folder_of(tmp_path / "flat", {"0.png": b"", "1.jpg": b"", ".2.png": b"", **others})
        complaint = f"flat: 2 images lie outside any class folder, .* the label of each image{candidate}$"
        with pytest.raises(InputError, match=complaint):
            listed(ImageSetConfig(kind="folder", path=str(root)))

    def test_listed_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(BadImage):
            open_image_set(self.by_csv(tmp_path, "path,label\nx.png,0\ngone.png,0\n"), 8).read("gone.png")

    def test_files_tell_of_every_image_and_the_csv(self, tmp_path: Path) -> None:
        files = open_image_set(self.by_csv(tmp_path, "path,label\nx.png,0\n"), 8).files()
        assert set(files) == {tmp_path / "labels.csv", tmp_path / "images/x.png"}

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png(noise(8, 8, 3)))
        with pytest.raises(InputError, match="needs a folder"):
            open_image_set(ImageSetConfig(kind="folder", path=str(tmp_path / "a.png")), 8)
