"""The courier hands out what an experiment names, as it was listed, and nothing else."""

import os
from pathlib import Path

import numpy as np
import pytest

from align_core.images import ImageSetConfig
from pipelines.compute import courier as courier_module
from pipelines.compute.courier import Courier, File, Refused, Span
from pipelines.compute.on_node import batches_of


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """Weights, and a folder with images of a class, of which one is selected."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for name in ("0.png", "1.png"):
        (tmp_path / "photos" / "cat" / name).write_bytes((tiny_folder / "photos" / "cat" / name).read_bytes())
    (tmp_path / "weights.pt").write_bytes(bytes(range(200)))
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path


def courier(folder: Path) -> Courier:
    photos = ImageSetConfig(kind="folder", path=str(folder / "photos"), limit=1)
    return Courier([str(folder / "weights.pt")], [photos])


def listed(own: Courier, place: Path) -> list[File]:
    files = own.listing(str(place))
    assert files is not None and not isinstance(files, Refused)
    return list(files)


def test_what_is_named_is_read_in_spans(folder: Path) -> None:
    own = courier(folder)
    (weights,) = listed(own, folder / "weights.pt")
    (image,) = listed(own, folder / "photos")
    assert (weights.name, weights.size, image.name) == (".", 200, "cat/0.png")
    read = own.read(str(folder / "weights.pt"), [Span(weights, 190, 200), Span(weights, 3, 5)])
    assert not isinstance(read, Refused) and read.tolist() == [*range(190, 200), 3, 4]
    read = own.read(str(folder / "photos"), [Span(image, 0, image.size)])
    assert not isinstance(read, Refused) and read.tobytes() == (folder / "photos" / "cat" / "0.png").read_bytes()


def test_what_is_not_named_is_refused(folder: Path) -> None:
    own = courier(folder)
    (weights,) = listed(own, folder / "weights.pt")
    for place in ("secret", "photos/cat", "photos/../secret", "weights.pt/"):
        assert own.listing(f"{folder}/{place}") is None
        assert isinstance(own.read(f"{folder}/{place}", [Span(weights, 0, 5)]), Refused)
    for place in ("weights.pt", "photos"):  # the second image is not selected
        for name in ("../secret", str(folder / "secret"), "cat/1.png", "."):
            state = os.stat(folder / "photos" / name if name != "." else folder / "secret")
            asked = File(name, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            assert isinstance(own.read(str(folder / place), [Span(asked, 0, 5)]), Refused)


def test_a_file_that_changes_on_the_way_is_refused(folder: Path) -> None:
    own, file = courier(folder), folder / "weights.pt"
    (weights,) = listed(own, file)
    before = file.stat()
    file.write_bytes(bytes(200))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps the times of the original
    read = own.read(str(file), [Span(weights, 0, 200)])
    assert isinstance(read, Refused) and read.why == "it was changed while it was sent"
    (image,) = listed(own, folder / "photos")
    (folder / "photos" / "cat" / "0.png").unlink()
    assert isinstance(own.read(str(folder / "photos"), [Span(image, 0, 5)]), Refused)


def test_only_image_sets_may_be_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "MOST_IMAGES", 50)
    own = courier(folder)
    refused = own.listing(str(folder / "photos"))
    assert isinstance(refused, Refused) and "image sets of up to 5e-08 GB are sent to the nodes" in refused.why
    assert refused.mend == "Put it on a shared disk, at the same path on every node, or into an object store (s3://, " \
        "gs://, hf://)"  # fmt: skip
    (weights,) = listed(own, folder / "weights.pt")
    assert weights.size == 200


def test_a_courier_that_cannot_read_says_where_and_why(folder: Path) -> None:
    (folder / "weights.pt").unlink()
    refused = courier(folder).listing(str(folder / "weights.pt"))
    assert isinstance(refused, Refused)
    assert refused.why == f"the command's node, {os.uname().nodename}, cannot read it either (there is no such file)"


def test_batches_hold_every_byte_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.compute.on_node._PIECE", 10)
    files = [File(str(number), size, 0, 0) for number, size in enumerate([25, 0, 3, 4, 10, 0, 1])]
    batches = list(batches_of(files))
    assert all(sum(own.stop - own.start for own in batch) <= 10 for batch in batches) and len(batches) == 6
    for file in files:
        spans = [(own.start, own.stop) for batch in batches for own in batch if own.file == file]
        covered = np.concatenate([np.arange(*span) for span in spans])
        assert covered.tolist() == list(range(file.size))
