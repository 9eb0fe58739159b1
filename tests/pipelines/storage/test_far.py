"""Inputs in object stores are brought to this machine once, whole, and anew when they change."""

import os
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from bytes_seen import Seen
from huggingface_hub import constants
from s3_server import KEY, SECRET, S3Server, s3_server

from align_core.errors import InputError
from pipelines.storage import far
from pipelines.storage.cache import check_room, unwatched
from pipelines.storage.far import Fact, facts, fetched
from pipelines.storage.hub import fetched_from_hub


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WITNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def put(s3: S3Server, tmp_path: Path) -> Callable[[str, bytes], str]:
    """Writes an object below a folder of this test, and returns its URI."""

    def written(path: str, content: bytes) -> str:
        with s3.filesystem.open_output_stream(f"{s3.bucket}/{tmp_path.name}/{path}", compression=None) as stream:
            stream.write(content)
        return s3.uri(quote(f"{tmp_path.name}/{path}"))

    return written


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_object_is_fetched_once_and_anew_when_it_changes(put: Callable[[str, bytes], str], cache: Path) -> None:
    uri, seen = put("some folder/a.npz", b"one"), Seen()
    copy = fetched(uri, seen)
    assert copy.read_bytes() == b"one" and copy.name == "a.npz" and copy.is_relative_to(cache)
    assert fetched(uri, seen) == copy and seen.announced == [3] and sum(seen.arrived) == 3
    before = facts(uri)
    put("some folder/a.npz", b"three")
    assert facts(uri) != before
    assert fetched(uri, seen).read_bytes() == b"three" and seen.announced == [3, 5]
    copy.unlink()  # the cache may be deleted at any time
    assert fetched(uri).read_bytes() == b"three"


def test_a_folder_is_as_it_is_in_the_store(
    put: Callable[[str, bytes], str], s3: S3Server, tmp_path: Path, cache: Path
) -> None:
    objects = {f"cat/{number}.png": bytes([number]) * 10 for number in range(40)} | {"a/b/c.csv.gz": b"as it is"}
    for path, content in objects.items():
        put(f"set/{path}", content)
    put("set-of-another/d.png", b"")
    uri = s3.uri(f"{tmp_path.name}/set/")
    folder = fetched(uri)
    assert content_of(folder) == objects
    assert sorted(Path(own.name).name for own in facts(uri)) == sorted(Path(path).name for path in objects)
    s3.filesystem.delete_file(f"{s3.bucket}/{tmp_path.name}/set/cat/3.png")
    put("set/cat/4.png", b"new")
    seen = Seen()
    del objects["cat/3.png"]
    assert content_of(fetched(uri, seen)) == objects | {"cat/4.png": b"new"}
    assert seen.announced == [3]


def test_facts_fetch_nothing_and_know_no_credentials(put: Callable[[str, bytes], str], cache: Path) -> None:
    (fact,) = facts(put("a.npz", b"one"))
    assert isinstance(fact, Fact) and fact.size == 3 and fact.name.endswith("/a.npz")
    assert not cache.exists() and KEY not in fact.name and SECRET not in fact.name


def test_stores_of_one_name_do_not_mix(put: Callable[[str, bytes], str], tmp_path: Path) -> None:
    uri = put("a", b"one")
    with s3_server(tmp_path / "server.log") as server:
        with server.filesystem.open_output_stream(f"{server.bucket}/{tmp_path.name}/a") as stream:
            stream.write(b"two")
        assert fetched(server.uri(f"{tmp_path.name}/a")).read_bytes() == b"two"
        assert fetched(uri).read_bytes() == b"one"


def test_several_at_once_fetch_it_once(put: Callable[[str, bytes], str], cache: Path) -> None:
    content, seen = os.urandom(20 * 2**20), Seen()
    uri = put("large", content)
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda _: fetched(uri, seen), range(4)))
    assert {copy.read_bytes() for copy in copies} == {content}
    assert sum(seen.arrived) == len(content)
    assert not list(cache.rglob("*.part"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "bucket", "said"),
        [
            ("nothing.npz", None, "there is no object, and no folder with objects, of this name"),
            ("a.npz", "nowhere", "there is no bucket nowhere"),
        ],
    )
    def test_nothing_there(self, s3: S3Server, cache: Path, path: str, bucket: str | None, said: str) -> None:
        uri = rf"s3://\*\*\*@{bucket or s3.bucket}/{path}"
        with pytest.raises(InputError, match=rf"^{uri}\?.*: {said}\. Check the address") as found:
            fetched(s3.uri(path, bucket=bucket))
        assert not cache.exists() and KEY not in str(found.value)

    def test_no_rights(self, tmp_path: Path, cache: Path) -> None:
        with s3_server(tmp_path / "server.log") as server:
            server.ask("POST", "moto-api/reset-auth", b"0")  # from now on the server checks credentials
            with pytest.raises(InputError, match=r"^s3://\*\*\*@bucket/a\?.*: cannot be read \(.*credentials") as found:
                fetched(server.uri("a"))
        assert not cache.exists() and KEY not in str(found.value)

    @pytest.mark.parametrize("uri", ["https://me:secret@host/a.npz", "ftp://host/a", "s4://bucket/a"])
    def test_a_scheme_that_is_not_known(self, uri: str) -> None:
        with pytest.raises(InputError, match=r"from s3://, gs://, hf://, not from (https|ftp|s4)://") as found:
            fetched(uri)
        assert "secret" not in str(found.value)

    def test_a_hash_is_not_the_end_of_a_name(self, put: Callable[[str, bytes], str], cache: Path) -> None:
        put("a", b"another")
        uri = put("a#2", b"this")
        assert fetched(uri).read_bytes() == b"this"
        shutil.rmtree(cache)
        with pytest.raises(InputError, match=r"/a#2\?.*: write # as %23"):
            fetched(uri.replace("%23", "#"))
        assert not cache.exists()

    def test_a_disk_that_cannot_hold_it(self, put: Callable[[str, bytes], str], cache: Path) -> None:
        uri, (_, most) = put("large", bytes(3 * 2**20)), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, most))  # a write of more than this fails, as on a full disk
        try:
            with pytest.raises(InputError, match=r"large\?.*: cannot be kept below .*cache on .*\. Make room"):
                fetched(uri)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert not [file for file in cache.rglob("*") if file.is_file() and ".locks" not in file.parts]

    def test_a_disk_that_has_no_room(self, cache: Path) -> None:
        cache.mkdir()
        free = shutil.disk_usage(cache).free
        with pytest.raises(OSError, match=r"it needs .* GB, and .* GB are free"):
            check_room(2 * free)

    def test_a_cache_that_is_no_folder(self, put: Callable[[str, bytes], str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WITNESS_CACHE", "/dev/null/cache")
        with pytest.raises(InputError, match=r"cannot be kept below /dev/null/cache .*WITNESS_CACHE"):
            fetched(put("a", b"1"))

    def test_a_download_that_ends_early(self, put: Callable[[str, bytes], str], cache: Path) -> None:
        """The object is replaced by a shorter one after it was listed."""
        uri = put("a", b"twelve bytes")
        listed = far._listed(uri)
        put("a", b"six by")
        with pytest.raises(InputError, match=r"/a: 6 bytes arrived of 12: .*Run again"):
            far._fetch(uri, listed, unwatched)
        assert not [file for file in cache.rglob("*") if file.is_file() and ".locks" not in file.parts]

    def test_a_name_that_leads_elsewhere(self) -> None:
        for path in ("bucket/a/../../../etc/passwd", "bucket//a", "bucket/./a", "bucket/.."):
            with pytest.raises(InputError, match=r"^s3://bucket: the name of the object .* cannot be that of a file"):
                far._checked(path, "s3://bucket")


class TestHub:
    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture(autouse=True)
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The hub's own cache, as its library writes it, and no network."""
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        for repository in ("models--owner--name", "datasets--owner--name"):
            own = tmp_path / "hub" / repository
            (own / "refs").mkdir(parents=True)
            (own / "refs" / "main").write_text(self.COMMIT)
            file = own / "snapshots" / self.COMMIT / "data" / "a.npz"
            file.parent.mkdir(parents=True)
            file.write_bytes(repository.encode())

    @pytest.mark.parametrize(
        ("uri", "content"),
        [
            ("hf://owner/name/data/a.npz", b"models--owner--name"),
            ("hf://owner/name@main/data/a.npz", b"models--owner--name"),
            (f"hf://datasets/owner/name@{COMMIT}/data/a.npz", b"datasets--owner--name"),
        ],
    )
    def test_a_file(self, uri: str, content: bytes) -> None:
        assert fetched(uri).read_bytes() == content
        (fact,) = facts(uri)
        kind = content.decode()
        assert fact == Fact(f"{kind}/snapshots/{self.COMMIT}/data/a.npz", len(content), 0)

    def test_names_are_as_they_are(self, tmp_path: Path) -> None:
        (tmp_path / f"hub/models--owner--name/snapshots/{self.COMMIT}/data/b#2%.npz").write_bytes(b"b")
        assert fetched("hf://owner/name/data/b#2%.npz").read_bytes() == b"b"

    @pytest.mark.parametrize("path", ["data", "data/b.npz"])
    def test_nothing_can_be_said_of_the_rest_without_the_hub(self, path: str) -> None:
        with pytest.raises(InputError, match=rf"^hf://owner/name/{path}: the hub does not answer, and no copy"):
            fetched_from_hub(f"hf://owner/name/{path}")

    @pytest.mark.parametrize("uri", ["hf://name/a.npz", "hf://owner/name", "hf://datasets/name/a.npz"])
    def test_an_address_of_another_form(self, uri: str) -> None:
        with pytest.raises(InputError, match=rf"^{uri}: an address on Hugging Face's hub is written hf://OWNER/NAME/"):
            fetched_from_hub(uri)
