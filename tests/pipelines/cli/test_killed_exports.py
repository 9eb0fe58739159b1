"""Exports to an object store that were killed: the same command completes them, and touches nothing else."""

from pathlib import Path

import pytest
from hand_made import HandMade, hand_made
from s3_server import S3Server

from pipelines.cli import main

PGD = {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    """A finished experiment of one attack, without a report."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = hand_made(tmp_path, attacks={"pgd": PGD}, compute={"chunk": 5})
    blueprint = made.finish({"adversarial/aligned/pgd": "012301230123"})
    blueprint.inspected.save(blueprint.store)
    return made


def test_before_its_manifest(finished: HandMade, s3: S3Server) -> None:
    for form, name in (("png", "aligned/pgd/manifest.json"), ("npz", "aligned/pgd.npz.json")):
        command = ["export", str(finished.file), "--surrogate", "aligned", "--attack", "pgd", f"--{form}"]
        assert main([*command, s3.uri(f"killed/{form}")]) == 0
        before = s3.objects(f"killed/{form}")
        s3.filesystem.delete_file(f"{s3.bucket}/killed/{form}/{name}")
        assert main([*command, s3.uri(f"killed/{form}")]) == 0
        assert s3.objects(f"killed/{form}") == before


def test_midway(finished: HandMade, s3: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The files that are there stay; what is no file of these images is of somebody, and nothing is written then."""
    folder = f"{s3.bucket}/midway/aligned/pgd"
    command = ["export", str(finished.file), "--surrogate", "aligned", "--attack", "pgd", "--png", s3.uri("midway")]
    assert main(command) == 0
    before, stamp = s3.objects("midway"), s3.filesystem.get_file_info(f"{folder}/00004.png").mtime_ns
    for name in ("manifest.json", "labels.csv", "00006.png", "00015.png"):
        s3.filesystem.delete_file(f"{folder}/{name}")
    for name, content in (("00006.png", before["aligned/pgd/00005.png"]), ("notes.txt", b"mine")):
        with s3.filesystem.open_output_stream(f"{folder}/{name}") as stream:
            stream.write(content)
        capsys.readouterr()
        there = s3.objects("midway")
        assert main(command) == 2
        assert "is there already, and holds something else than these images" in capsys.readouterr().err
        assert s3.objects("midway") == there
        s3.filesystem.delete_file(f"{folder}/{name}")
    assert main(command) == 0
    assert s3.objects("midway") == before
    assert s3.filesystem.get_file_info(f"{folder}/00004.png").mtime_ns == stamp
