"""The `witness` command: it starts fast, every flag reaches what it names, and the exit code says how it ended."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hand_made import HandMade, hand_made

import pipelines.cli
from pipelines.cli import main
from pipelines.run.request import Request
from pipelines.run.status import Entry, Status, watch

STARTER = {"--train", "--test", "--kind", "--classes", "--image-size", "--source", "--witness", "--target", "--name"}
COMMON = {"--set", "--address", "--output", "--quiet", "--json", "--help"}
STAGE = {"--rehash", "--dashboard"}
COMMANDS: dict[str, set[str]] = {
    "demo": {"--dashboard"}, "run": STAGE, "align": STAGE, "craft": STAGE,
    "evaluate": {*STAGE, "--clean"}, "reasons": STAGE, "report": {*STAGE, "--log"},
    "tune": {"--space", "--samples", "--searcher", "--scheduler", "--concurrent", "--max-clean-drop", "--attack",
             "--surrogate", *STAGE},
    "plan": {"--cells"}, "status": {"--watch", "--cells"}, "verify": {"--sample", "--seed"},
    "export": {"--png", "--npz", "--robustbench", "--parquet", "--surrogate", "--attack", "--clean", "--rehash"},
    "schedule": {"--once", "--list"}, "ui": {"--port"}, "compare": {"--output", "--json"}, "init": STARTER,
    "list": {"--json"},
}  # fmt: skip
ALONE = {"init", "list", "compare"}  # they run no experiment, and use no cluster
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "ray",
    "mlflow",
    "pyarrow",
    "numpy",
    "pydantic",
    "sklearn",
    "matplotlib",
    "PIL",
}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """A finished experiment that nothing here changes."""
    experiment = hand_made(tmp_path_factory.mktemp("finished"))
    experiment.finish()
    return experiment


def status(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    """What `status --json` says of each folder."""
    capsys.readouterr()
    assert main(["status", *arguments, "--json"]) == 0
    return {entry["folder"]: entry for entry in json.loads(capsys.readouterr().out)["entries"]}


def states(entries: dict[str, dict[str, Any]]) -> set[str]:
    return {entry["state"] for entry in entries.values()}


def loaded_by(code: str, folder: Path) -> set[str]:
    """Top-level packages that a new process has loaded after this code, however it ends."""
    wrapped = f"try: exec({code!r})\nfinally:\n import sys\n print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", wrapped],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = {module.partition(".")[0] for module in done.stdout.splitlines()[-1].split()}
    assert "pipelines" in loaded, done.stderr
    return loaded


class TestHelp:
    def test_the_installed_command_is_this_one(self) -> None:
        (script,) = entry_points(group="console_scripts", name="witness")
        assert script.load() is main

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--help"], ["run", "--help"], ["no-such-command"], ["--version"], ["init"], ["list", "--help"],
            ["list", "x"], ["list", "attacks"], ["list", "losses"], ["list", "spaces"], ["list", "controls"],
            ["list", "experiments"],
        ],
        ids=" ".join,
    )  # fmt: skip
    def test_it_waits_for_nothing_heavy(self, arguments: list[str], tmp_path: Path) -> None:
        assert not loaded_by(f"import pipelines.cli\npipelines.cli.main({arguments})", tmp_path) & HEAVY

    def test_no_module_of_the_command_imports_anything_heavy(self, tmp_path: Path) -> None:
        folder = Path(pipelines.cli.__file__).parent
        modules = [f"pipelines.cli.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__"]
        assert "pipelines.cli.commands" in modules
        assert not loaded_by("\n".join(f"import {module}" for module in modules), tmp_path) & HEAVY

    def test_the_version_and_nothing_else(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["--version"])
        assert capsys.readouterr() == (f"witness {version('witness')}\n", "")

    @pytest.mark.parametrize("arguments", [["--version"], ["list", "losses", "--json"]])
    def test_python_m_does_the_same(self, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "pipelines.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        installed = f"import sys\nfrom pipelines.cli import main\nsys.exit(main({arguments}))"
        same = subprocess.run([sys.executable, "-c", installed], capture_output=True, text=True, check=True)
        assert done.stdout == same.stdout != ""

    def test_it_lists_the_commands(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        assert set(re.findall(r"^    (\w+)", capsys.readouterr().out, re.MULTILINE)) == COMMANDS.keys()

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_lists_its_flags(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) == COMMANDS[command] | (
            {"--help"} if command in ALONE else COMMON
        )

    @pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["run"], ["run", "e.yaml", "--no-such-flag"]])
    def test_a_command_that_does_not_exist(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "usage: witness" in capsys.readouterr().err


def everything_from(terminal: int) -> str:
    """What a terminal was told, to the end, which Linux tells by an error."""
    said = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 100_000):
            said += part
    os.close(terminal)
    return said.decode()


class TestFlags:
    def test_json_is_one_object_on_standard_output(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["status", str(hand_made(tmp_path).file), "--json"]) == 0
        captured = capsys.readouterr()
        assert captured.out.count("\n") == 1
        assert json.loads(captured.out).keys() == {"done", "chunks", "entries", "warnings"}
        assert "inspect data.test" in captured.err

    def test_output(self, finished: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = str(finished.file)
        assert states(status(capsys, file)) == {"done"}
        assert states(status(capsys, file, "--output", str(tmp_path / "elsewhere"))) == {"missing"}
        finished.output.rename(tmp_path / "moved")
        try:
            assert states(status(capsys, file, "--output", str(tmp_path / "moved"))) == {"done"}
        finally:
            (tmp_path / "moved").rename(finished.output)

    def test_set_as_often_as_it_is_given(self, finished: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
        entries = status(capsys, str(finished.file), "--set", "targets=[cousin]", "--set", "attacks.pgd.steps=9")
        cells = {folder: entry["state"] for folder, entry in entries.items() if folder.startswith("outcomes/aligned")}
        assert cells == {
            "outcomes/aligned/pgd/@self": "missing",
            "outcomes/aligned/pgd/cousin": "missing",
            "outcomes/aligned/mi/@self": "done",
            "outcomes/aligned/mi/cousin": "done",
        }

    @pytest.mark.parametrize(("flags", "live"), [([], True), (["--quiet"], False), (["--json"], False)])
    def test_quiet_is_plain_lines_on_a_terminal(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], live: bool
    ) -> None:
        monkeypatch.setenv("TERM", "xterm")
        ours, theirs = pty.openpty()
        with open(theirs, "w", encoding="utf-8") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            assert main(["status", str(hand_made(tmp_path).file), *flags]) == 0
        said = everything_from(ours)
        assert "inspect data.test: 12 images in" in said
        assert ("\x1b[" in said) == live


class TestStatus:
    def test_it_writes_nothing(self, tmp_path: Path) -> None:
        experiment = hand_made(tmp_path)
        assert main(["status", str(experiment.file)]) == 0
        assert not experiment.output.exists()

    def test_states(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = hand_made(tmp_path, compute={"chunk": 5})
        blueprint = experiment.finish()
        tables = {cell.table.folder: cell.table for cell in blueprint.cells()}
        chunk = pa.table({"image_id": blueprint.inspected.manifests["test"].ids[:5]})
        for target in ("cousin", "twin", "stranger"):
            blueprint.store.delete(tables[f"outcomes/source/pgd/{target}"].finished_file)
        tables["outcomes/source/pgd/twin"].write_chunk(blueprint.store, 1, chunk)
        tables["outcomes/source/pgd/stranger"].write_failure(blueprint.store, 2, "why")
        entries = status(capsys, str(experiment.file))
        told = {folder: (entry["state"], entry["done"], entry["chunks"]) for folder, entry in entries.items()}
        assert told["outcomes/source/pgd/cousin"] == ("missing", 0, 3)
        assert told["outcomes/source/pgd/twin"] == ("partial", 1, 3)
        assert told["outcomes/source/pgd/stranger"] == ("failed", 0, 3)
        assert told["outcomes/source/mi/twin"] == ("done", 3, 3)
        assert told["models/aligned"] == ("done", 0, 0)
        assert main(["status", str(experiment.file), "--cells"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(told) + 1
        assert "partial  outcomes/source/pgd/twin  1 of 3 chunks" in lines
        there, all_chunks = (sum(entry[part] for entry in told.values()) for part in (1, 2))
        sums = f"{len(told) - 3} done, 1 failed, 1 missing, 1 partial; {there} of {all_chunks} chunks"
        assert lines[-1] == f"in all: {sums}"
        assert main(["status", str(experiment.file)]) == 0
        *table, last = capsys.readouterr().out.splitlines()
        assert last == f"in all: {sums}"
        assert [re.split(" {2,}", line) for line in table] == [
            ["stage", "of", "state", "chunks"],
            ["align", "aligned", "done"],
            ["craft", "all 3 surrogates", "done", "18 of 18"],
            ["evaluate", "clean images", "done", "18 of 18"],
            ["evaluate", "source", "5 done, 1 failed, 1 missing, 1 partial", "16 of 24"],
            ["evaluate", "aligned", "done", "24 of 24"],
            ["evaluate", "witness", "done", "24 of 24"],
        ]
        assert len({line.index(word) for line, word in zip(table, ["state", "done", "done"], strict=False)}) == 1

    def test_the_seeds_of_a_surrogate_share_a_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = hand_made(tmp_path, seeds=[0, 1, 2], compute={"chunk": 5})
        blueprint = experiment.finish()
        table = next(cell.table for cell in blueprint.cells() if cell.table.folder == "outcomes/aligned~1/pgd/twin")
        blueprint.store.delete(table.finished_file)
        assert main(["status", str(experiment.file)]) == 0
        *lines, _ = capsys.readouterr().out.splitlines()
        assert [re.split(" {2,}", line) for line in lines[1:]] == [
            ["align", "aligned", "done"],
            ["craft", "all 3 surrogates", "done", "54 of 54"],
            ["evaluate", "clean images", "done", "24 of 24"],
            ["evaluate", "source", "done", "72 of 72"],
            ["evaluate", "aligned", "23 done, 1 missing", "69 of 72"],
            ["evaluate", "witness", "done", "72 of 72"],
        ]
        assert main(["status", str(experiment.file), "--cells"]) == 0
        assert "missing  outcomes/aligned~1/pgd/twin" in capsys.readouterr().out.splitlines()

    def test_watched_it_looks_again_until_all_is_done(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = hand_made(tmp_path)
        blueprint = experiment.finish()
        table = blueprint.adversarial(blueprint.by_name["source"], "pgd")
        whole = blueprint.store.read(table.finished_file)
        blueprint.store.delete(table.finished_file)
        looks = watch(Request(experiment.file, quiet=True), every=0.01)
        first = next(looks)
        blueprint.store.write(table.finished_file, whole)
        last = list(looks)[-1]
        assert (first.is_done, last.is_done) == (False, True)
        assert last.done - first.done == 1
        assert main(["status", str(experiment.file), "--watch", "--json"]) == 0
        (said,) = capsys.readouterr().out.splitlines()
        assert json.loads(said) == last.as_json()

    def test_watched_its_rate_counts_from_the_first_progress(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Workers start for a minute; then one chunk a second is made."""
        looks = [(0, 0), (60, 0), (61, 2), (63, 4), (71, 12)]
        found = (Status([Entry("clean/a", "partial", done, 20)], at) for at, done in looks)
        monkeypatch.setattr("pipelines.run.status.watch", lambda _: found)
        assert main(["status", str(hand_made(tmp_path).file), "--watch"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "1 partial; 0 of 20 chunks",
            "1 partial; 2 of 20 chunks",
            "1 partial; 4 of 20 chunks; 1.0/s, 16 s left",
            "1 partial; 12 of 20 chunks; 1.0/s, 8 s left",
        ]

    def test_its_rate_and_what_remains(self) -> None:
        entries = [[Entry("a", "partial", done, 10)] for done in (2, 6)]
        first, later = (Status(entry, at) for entry, at in zip(entries, (100.0, 102.0), strict=True))
        assert later.since(first) == "1 partial; 6 of 10 chunks; 2.0/s, 2 s left"
        assert first.since(first) == "1 partial; 2 of 10 chunks"


class TestExitCodes:
    """0 and 2: above, and in test_bad_input."""

    def test_1_where_something_is_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = hand_made(tmp_path)
        for stage, first in (("report", "align"), ("craft", "align")):
            assert main([stage, str(experiment.file)]) == 1
            assert f"`witness {first}` has to come first: these are missing: aligned" in capsys.readouterr().err
            assert not experiment.output.exists()  # it can do nothing, so it writes nothing

    def test_1_while_another_run_is_at_work(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = hand_made(tmp_path)
        with experiment.finish().store.locked():
            assert main(["report", str(experiment.file)]) == 1
        assert f"another run is at work here (process {os.getpid()} on " in capsys.readouterr().err

    def test_1_where_the_disk_fails(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        experiment = hand_made(tmp_path)
        experiment.finish()
        (experiment.output / "by-hand" / "experiment.yaml").mkdir(parents=True)
        assert main(["report", str(experiment.file)]) == 1
        assert "experiment.yaml" in (said := capsys.readouterr().err) and "What was finished is kept" in said

    def test_130_when_it_is_interrupted(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = "import os, signal, time\n\ndef net():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(9)\n"
        (tmp_path / "interrupted_net.py").write_text(source)
        experiment = hand_made(tmp_path)
        factory = "models.near={factory: 'interrupted_net:net', weights: near.safetensors}"
        assert main(["run", str(experiment.file), "--set", factory]) == 130
        assert "witness: stopped. What was finished is kept" in capsys.readouterr().err
        assert not experiment.output.exists()
