"""In an object store objects appear complete or not at all, moves lose nothing, and faults are reported early."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs
from s3_server import KEY, SECRET, S3Server, s3_server
from tiny_experiment import write_tiny_experiment

from align_core.errors import InputError
from pipelines.cli import main
from pipelines.storage import object_store
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.credentials import without_credentials
from pipelines.storage.object_store import open_store, s3_arguments, upload
from pipelines.storage.store import Store

LARGE = 34 * 2**20  # bytes: several pieces of an upload, and more than is kept in memory


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder that no other test uses."""
    return f"objects/{tmp_path.name}"


class BreaksOff(io.BytesIO):
    """A file that cannot be read to its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > LARGE / 2:
            raise ZeroDivisionError
        return super().read(size)


class TestUploads:
    def test_a_large_file(self, s3: S3Server, folder: str) -> None:
        content = bytes(range(256)) * (LARGE // 256)
        store = Store(s3.uri(folder), "tiny")
        with store.writing("a/large") as stream:
            for start in range(0, LARGE, 2**20):
                stream.write(content[start : start + 2**20])
        assert s3.objects(folder) == {"tiny/a/large": content}

    @pytest.mark.parametrize(
        ("source", "problem"),
        [(BreaksOff(bytes(LARGE)), ZeroDivisionError), (io.BytesIO(bytes(LARGE - 1)), OSError)],
        ids=["reading fails", "shorter than announced"],
    )
    def test_an_upload_that_is_not_complete_leaves_no_object(
        self, s3: S3Server, folder: str, source: io.BytesIO, problem: type[Exception]
    ) -> None:
        with pytest.raises(problem):
            upload(s3.filesystem, source, f"{s3.bucket}/{folder}/one", LARGE)
        assert s3.objects(folder) == {}

    def test_a_small_file_takes_one_request_to_write_and_one_to_read(self, tmp_path: Path) -> None:
        with s3_server(tmp_path / "server.log") as server:
            store = Store(server.uri("runs"), "tiny")
            store.write("a/one", bytes(2**20))
            assert store.read("a/one") == bytes(2**20)
            log = (tmp_path / "server.log").read_text()
        assert re.findall(r"([A-Z]+) /bucket/runs/tiny/a/one ", log) == ["PUT", "HEAD", "GET"]

    def test_a_file_that_is_deleted_while_it_is_read_counts_as_missing(
        self, s3: S3Server, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """S3 itself reports an internal failure."""
        store = Store(s3.uri(folder), "tiny")
        store.write("one.json", b"{}")
        opened = Store.open_input

        def open_and_delete(self: Store, relative: str) -> pa.NativeFile:
            file = opened(self, relative)
            self.delete(relative)
            return file

        monkeypatch.setattr(Store, "open_input", open_and_delete)
        assert store.read_json("one.json") is None


class TestMoves:
    def test_nothing_is_deleted_before_everything_is_copied(self, s3: S3Server, folder: str) -> None:
        store = Store(s3.uri(folder), "tiny")
        store.write("a/one", b"1")
        with pytest.raises((OSError, TypeError)):
            store.set_aside("a", ["one", "never there"])
        assert store.read("a/one") == b"1"

    def test_a_file_too_large_for_the_store_to_copy(
        self, s3: S3Server, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(object_store, "_LARGEST_COPY", 10)
        store = Store(s3.uri(folder), "tiny")
        store.write("a/one", b"more than ten bytes")
        stale = store.set_aside("a", ["one"])
        assert s3.objects(folder) == {f"tiny/{stale}/one": b"more than ten bytes"}


class TestDeletions:
    @pytest.fixture(params=[True, False], ids=["boto3", "pyarrow alone"])
    def has_boto3(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
        if not request.param:
            monkeypatch.setitem(sys.modules, "boto3", None)
            monkeypatch.setitem(sys.modules, "boto3.session", None)
        return bool(request.param)

    def test_many_files_take_one_request_where_boto3_is(self, tmp_path: Path, has_boto3: bool) -> None:
        names = ["a/one", "a/two +%&", "a/b/three é", "a/four"]
        with s3_server(tmp_path / "server.log") as server:
            store = Store(server.uri("runs"), "tiny")
            for name in [*names, "a/kept"]:
                store.write(name, b"1")
            store.delete_all([*names, "a/never there"])
            assert list(server.objects("runs")) == ["tiny/a/kept"]
            log = (tmp_path / "server.log").read_text()
        assert len(re.findall(r"POST /bucket\?delete", log)) == int(has_boto3)
        assert bool(re.findall("DELETE /", log)) != has_boto3

    def test_what_cannot_be_deleted_is_an_error(self, tmp_path: Path, has_boto3: bool) -> None:
        with s3_server(tmp_path / "server.log") as server:
            store = Store(server.uri("runs"), "tiny")
            for name in "abcd":
                store.write(name, b"1")
            server.ask("POST", "moto-api/reset-auth", b"0")  # from now on the server checks credentials
            with pytest.raises(OSError, match="When "):
                store.delete_all(list("abcd"))
            server.ask("POST", "moto-api/reset-auth", b"1000")
            assert len(server.objects("runs")) == 4


def test_a_join_reads_and_deletes_with_few_requests(tmp_path: Path) -> None:
    """Of 12 chunks: two requests for each, two to see that the table is not there, one to write it, one to delete."""
    table, rows = ChunkedTable("adversarial/source/pgd", {"seed": 0}), [3] * 12
    with s3_server(tmp_path / "server.log") as server:
        store = Store(server.uri("runs"), "tiny")
        for chunk in range(12):
            table.write_chunk(store, chunk, pa.table({"image_id": [f"{chunk:02d}-{row}" for row in range(3)]}))
        before = len((tmp_path / "server.log").read_text())
        assert table.finish(store, rows) == []
        log = (tmp_path / "server.log").read_text()[before:]
        assert list(server.objects("runs")) == [f"tiny/{table.finished_file}"]
        ids = table.read(store, ["image_id"])["image_id"].to_pylist()
    assert ids == [f"{chunk:02d}-{row}" for chunk in range(12) for row in range(3)]
    assert len(re.findall(r"(?:GET|PUT|HEAD|POST|DELETE) /", log)) == 2 * 12 + 4


@pytest.fixture
def assert_refused(tmp_path: Path) -> Callable[[str], None]:
    """Checks that some output is refused before any work, by whatever command, with a message that holds no secret."""
    (tmp_path / "experiment").mkdir()
    write_tiny_experiment(tmp_path / "experiment")
    command = [str(tmp_path / "experiment" / "tiny.yaml"), "--set", f"tracking=sqlite:///{tmp_path}/mlflow.db"]

    def check(output: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
        for name in ("run", "status"):
            assert main([name, *command, "--output", output]) == 2
            error = capfd.readouterr().err
            assert message in error
            assert "output: s3://***@" in error
            assert SECRET not in error and KEY not in error
            assert not (tmp_path / "mlflow.db").exists()

    return check


class TestOpening:
    """The URI given to `open_store` means what pyarrow says it means; only the timeouts are Witness's own."""

    @pytest.mark.parametrize(
        "uri",
        [
            "s3://bucket/runs?region=eu-west-1",
            "s3://K:S@bucket/runs?region=eu-west-1",
            "s3://K%2B:S%2F%40%3A+:s@bucket/a%20b?region=eu-west-1",
            "s3://K@bucket/runs?region=eu-west-1",
            "s3://:S@bucket/runs?region=eu-west-1",
            "s3://bucket/runs?region=eu-west-1&scheme=http&endpoint_override=127.0.0.1%3A9",
            "s3://bucket/runs?region=eu-west-1&region=us-east-1&endpoint_override=a:1&endpoint_override=b:2",
            "s3://bucket/runs?region=a+b&allow_bucket_creation=True&allow_bucket_deletion=0",
            "s3://bucket/runs?region=eu-west-1&tls_ca_file_path=/etc/ca.pem",
            "s3://bucket/runs?&region=eu-west-1&",
        ],
    )
    @pytest.mark.parametrize("endpoints", [{}, {"AWS_ENDPOINT_URL": "x:1"}, {"AWS_ENDPOINT_URL_S3": "y:2"}])
    def test_s3(self, uri: str, endpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "F", **endpoints}.items():
            monkeypatch.setenv(name, value)
        theirs, folder = fs.FileSystem.from_uri(uri)
        assert fs.S3FileSystem(**s3_arguments(uri, theirs.region)) == theirs
        ours, our_folder = open_store(uri)
        assert our_folder == folder
        assert ours != theirs  # the timeouts differ

    def test_the_endpoint_of_the_environment_is_used(
        self, s3: S3Server, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{s3.port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        Store(f"s3://{s3.bucket}/{folder}?region=us-east-1", "tiny").write("a/one", b"1")
        assert s3.objects(folder) == {"tiny/a/one": b"1"}

    @pytest.mark.parametrize("parameter", ["tls_verify_certificates=false", "smart_defaults=legacy"])
    def test_a_parameter_that_would_be_ignored_is_refused(self, parameter: str) -> None:
        name = parameter.partition("=")[0]
        with pytest.raises(InputError, match=rf"^s3://\*\*\*@bucket/runs.*: the parameter {name} cannot be used"):
            open_store(f"s3://K:S@bucket/runs?region=eu-west-1&{parameter}")

    @pytest.mark.parametrize(
        ("given", "same_as"),
        [
            ("gs://anonymous@bucket/runs", "gs://anonymous@bucket/runs?retry_limit_seconds=60"),
            ("gs://anonymous@bucket?project_id=p", "gs://anonymous@bucket?project_id=p&retry_limit_seconds=60"),
            ("gs://anonymous@bucket?retry_limit_seconds=5", "gs://anonymous@bucket?retry_limit_seconds=5"),
        ],
    )
    def test_google(self, given: str, same_as: str) -> None:
        assert open_store(given) == fs.FileSystem.from_uri(same_as)
        assert open_store(given) != fs.FileSystem.from_uri(same_as + "1")


class TestRefusals:
    def test_no_such_bucket(
        self, s3: S3Server, assert_refused: Callable[..., None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert_refused(s3.uri("runs", bucket="nowhere"), "there is no bucket nowhere; make it", capfd)

    def test_unknown_credentials(
        self, tmp_path: Path, assert_refused: Callable[..., None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        with s3_server(tmp_path / "server.log") as server:
            server.ask("POST", "moto-api/reset-auth", b"0")  # from now on the server checks credentials
            assert_refused(server.uri("runs"), "cannot be used (When ", capfd)
            server.ask("POST", "moto-api/reset-auth", b"1000")
            assert server.objects() == {}

    @pytest.mark.slow
    def test_a_server_that_stopped(
        self, tmp_path: Path, assert_refused: Callable[..., None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        with s3_server(tmp_path / "server.log") as server:
            gone = server.uri("runs")
        assert_refused(gone, "check the address, the credentials and what they allow", capfd)

    def test_a_secret_that_is_not_percent_encoded(
        self, s3: S3Server, assert_refused: Callable[..., None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        for secret in (SECRET, "what?ever", "has a space"):
            output = s3.uri("runs").replace("not%2Ffor%2Banyone", secret)
            assert_refused(output, "in a key or a secret, / as %2F", capfd)

    def test_objects_that_are_denied_where_they_may_be_listed(
        self, tmp_path: Path, assert_refused: Callable[..., None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Else that of the first image set would be said to be wrong."""
        with s3_server(tmp_path / "server.log") as server:
            with server.filesystem.open_output_stream(f"{server.bucket}/runs/tiny/experiment.yaml") as stream:
                stream.write(b"name: tiny")
            server.ask("POST", "moto-api/reset-auth", b"1")  # the listing is the last request that is answered
            assert_refused(server.uri("runs"), "check the address, the credentials and what they allow", capfd)

    @pytest.mark.parametrize("uri", ["s3://K:SE#CRET@bucket/runs", "s3://bucket/runs#2?token=SE#CRET", "file:///r#2"])
    def test_a_hash_after_which_nothing_would_be_read(self, uri: str) -> None:
        with pytest.raises(InputError, match="write # as %23") as found:
            open_store(uri)
        assert "CRET" not in str(found.value)
        assert open_store("file:///runs%232")[1] == "/runs#2"

    @pytest.mark.parametrize(
        ("path", "mend"),
        [
            ("my set/50%.npz", "write a space as %20, % as %25"),
            ("%2G%20/a[1]", r"write % as %25, \[ as %5B, \] as %5D"),
            ("ünï", "write ü as %C3%BC, ï as %C3%AF"),
        ],
    )
    def test_characters_that_no_address_may_have(self, path: str, mend: str) -> None:
        with pytest.raises(InputError, match=rf"^s3://\*\*\*@b/.*: Cannot parse URI.*; {mend}$") as found:
            open_store(f"s3://key:se%20cret@b/{path}?region=a")
        assert "cret" not in str(found.value)

    def test_an_unknown_parameter(self, assert_refused: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
        assert_refused(f"s3://{KEY}:{SECRET.replace('/', '%2F')}@bucket/runs?region=a&colour={SECRET}", "colour", capfd)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/runs", "s3://bucket/runs"),
        ("s3://bucket/a@b/runs", "s3://bucket/a@b/runs"),
        ("s3://K:S%2F@bucket/runs", "s3://***@bucket/runs"),
        ("s3://K:S/S?S#S@bucket/runs", "s3://***@bucket/runs"),
        ("s3://S#S@bucket/runs", "s3://***@bucket/runs"),
        ("s3://bucket/runs?region=eu-1#secret", "s3://bucket/runs?***"),
        ("s3://bucket/runs?region=eu-1&scheme=http", "s3://bucket/runs?region=eu-1&scheme=http"),
        ("s3://bucket/runs?region=eu-1&token=secret", "s3://bucket/runs?region=eu-1&***"),
        ("s3://bucket/runs?endpoint_override=127.0.0.1%3A9", "s3://bucket/runs?endpoint_override=127.0.0.1%3A9"),
        ("s3://bucket/runs?endpoint_override=me%3Asecret%40host", "s3://bucket/runs?***"),
    ],
)
def test_what_is_shown_of_a_uri(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown
    assert without_credentials(shown) == shown


def test_the_location_is_shown_without_parameters(s3: S3Server) -> None:
    assert Store(s3.uri("runs/"), "tiny").location == "s3://***@bucket/runs/tiny"


def test_a_scheme_that_pyarrow_does_not_know() -> None:
    with pytest.raises(InputError, match=r"output: s4://bucket: "):
        Store("s4://bucket", "tiny").check_writable()
