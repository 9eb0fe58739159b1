"""Exported files appear when they are complete: after an interruption nothing is left, on a disk or in a store."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from s3_server import S3Server

from align_core.errors import InputError
from pipelines.export.place import appearing, check_free, place_at
from pipelines.failure import Busy
from pipelines.storage.store import Store


def write_and_stop(store: Store, target: str, files: Sequence[str]) -> None:
    with appearing(store, target) as aside:
        for name in files:
            store.write(f"{aside}/{name}".rstrip("/"), b"1")
        raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["disk", "object store"])
@pytest.mark.parametrize("target", ["aligned/pgd", "a.npz"])
def test_an_interruption_leaves_nothing(where: str, target: str, s3: S3Server, tmp_path: Path) -> None:
    store = Store(str(tmp_path) if where == "disk" else s3.uri(f"interrupted-{len(target)}"), "out")
    files = ("1.png", "sub/2.png") if target == "aligned/pgd" else ("",)
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(store, target, files)
    assert store.listing() == {} and check_free(store, target)
    with appearing(store, target) as aside:
        assert check_free(store, target) == (where == "disk" or target == aside)
        for name in files:
            store.write(f"{aside}/{name}".rstrip("/"), b"1")
    assert not check_free(store, target)
    assert sum(map(len, store.listing().values())) == len(files)


def test_what_a_killed_export_left_is_gone_after_the_next(tmp_path: Path) -> None:
    """And an export to the same target that is still at work is left alone."""
    killed = (
        "import os, signal; from pipelines.export.place import appearing; from pipelines.storage.store import Store\n"
        f"with appearing(store := Store({str(tmp_path)!r}, 'out'), 'aligned/pgd') as aside:\n"
        "    store.write(f'{aside}/sub/1.png', b'1')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("1.png"))
    store = Store(str(tmp_path), "out")
    with appearing(store, "aligned/pgd") as aside:
        assert not list(tmp_path.rglob("1.png"))
        store.write(f"{aside}/2.png", b"2")
        with (
            pytest.raises(Busy, match="out/aligned/pgd: another export is writing this"),
            appearing(store, "aligned/pgd"),
        ):
            pass
    assert store.listing() == {"aligned/pgd": ["2.png"]} and not list(tmp_path.rglob(".*"))


def test_a_folder_with_anything_in_it_is_not_free(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "out")
    (tmp_path / "out/a").mkdir(parents=True)
    assert check_free(store, "a") and not check_free(store, "a", is_folder=False)
    (tmp_path / "out/a/empty").mkdir()
    assert not check_free(store, "a")
    (tmp_path / "out/link").symlink_to(tmp_path / "out/a")
    assert not check_free(store, "link") and check_free(store, "link/empty")


@pytest.mark.parametrize(
    ("leads_to", "is_folder", "message"),
    [("gone", True, "out/a is a link that leads nowhere"), ("gone", False, "out/a is a link that leads nowhere"),
     ("empty", True, "out/a is a link to a folder, which cannot be put in its place")],
)  # fmt: skip
def test_a_link_is_not_replaced(tmp_path: Path, leads_to: str, is_folder: bool, message: str) -> None:
    (tmp_path / "out/empty").mkdir(parents=True)
    (tmp_path / "out/a").symlink_to(leads_to)
    with pytest.raises(InputError, match=message):
        check_free(Store(str(tmp_path), "out"), "a", is_folder)


@pytest.mark.parametrize("path", ["s3://k:s@bucket/a#2", "s3://bucket/a#2.npz", "s3://bucket/a?region=x#2"])
def test_an_address_does_not_end_before_its_end(path: str) -> None:
    with pytest.raises(InputError, match="write # as %23"):
        place_at(path, (".npz",))


def test_an_address_with_one_slash_is_no_path() -> None:
    with pytest.raises(InputError, match=r"^did you mean s3://\*\*\*@bucket/a\.npz\?") as found:
        place_at("s3:/key:secret@bucket/a.npz", (".npz",))
    assert "secret" not in str(found.value)


@pytest.mark.parametrize(
    ("path", "suffixes", "location", "file"),
    [
        ("a/b", (), "{}/a/b", None),
        ("a/b.npz", (), "{}/a/b.npz", None),
        ("a/b.npz", (".npz",), "{}/a", "b.npz"),
        ("a/b.NPZ", (".npz",), "{}/a", "b.NPZ"),
        ("a/b?c.npz", (".npz",), "{}/a", "b?c.npz"),
        ("./s3:/b.npz", (".npz",), "{}/s3:", "b.npz"),
        ("a/../b.pt", (".pt", ".pth"), "{}", "b.pt"),
        ("s3://k:s@bucket/a/b?region=x", (".npz",), "s3://***@bucket/a/b", None),
        ("s3://k:s@bucket/a/b.npz?region=x", (".npz",), "s3://***@bucket/a", "b.npz"),
    ],
)
def test_a_path_is_a_file_or_a_folder(
    path: str,
    suffixes: tuple[str, ...],
    location: str,
    file: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    place = place_at(path, suffixes)
    assert (place.store.location, place.file) == (location.format(tmp_path), file)
