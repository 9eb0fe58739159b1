"""`witness verify` names what was damaged or edited, whatever it is, and never ends on it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crafted_by_hand import crafted, finish
from damaged_tables import described, findings, results, rewrite, table, verified, written
from hand_made import HandMade, hand_made
from safetensors.torch import load_file, save_file

from pipelines.cli import main
from pipelines.experiment import factories
from pipelines.report.rows import COLUMNS

CHATTY = """

class Chatty(nn.Flatten):
    def forward(self, images):
        print("predicting aloud")
        return super().forward(images)
"""
OUTCOME, IMAGES, CLEAN = "outcomes/aligned/pgd/twin", "adversarial/aligned/pgd", "clean/twin"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return crafted(tmp_path_factory.mktemp("original"))


@pytest.fixture
def made(original: HandMade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    """A copy, which a test may damage."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copytree(original.folder, tmp_path, dirs_exist_ok=True)
    copy = HandMade(tmp_path)
    copy.write(compute={"chunk": 3})
    return copy


def test_a_copy_that_nobody_touched_has_no_problem(made: HandMade) -> None:
    """It lies elsewhere, so its experiment.yaml names other paths."""
    found = verified(made)
    assert found.findings == []
    assert found.checked["files of the report"] == len(COLUMNS) - 1 and found.checked["networks"] == 7
    (trusted,) = found.trusted
    assert trusted.startswith("Python and the libraries that are installed here")


class TestSample:
    def test_it_is_spread_over_all_chunks(self, made: HandMade) -> None:
        """A single row of the last chunk is wrong in every table: a sample of the first chunk would not see it."""
        file = table(made, OUTCOME)
        rewrite(file, "adversarial_prediction", lambda values: np.where(np.arange(12) < 9, values, (values + 1) % 3))
        found = verified(made, sample=4)
        assert found.checked["predictions made again"] == 4 * 30
        assert any(f"{OUTCOME}: 1 of 4 images are predicted differently now: " in line for line in found.findings)
        assert found.trusted[0] == "the predictions on all but 4 of the 12 images of each set"

    def test_every_image_may_be_drawn_and_none(self, made: HandMade) -> None:
        assert verified(made, sample=99).checked["predictions made again"] == 12 * 30
        assert "predictions made again" not in verified(made, sample=0).checked

    def test_near_ties_are_no_difference_and_others_are(self, made: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
        """Among 12 predictions, those whose logit is within the tolerance of the largest count as the same."""
        rewrite(table(made, CLEAN), "prediction", lambda values: (values + 1) % 3)
        monkeypatch.setattr("pipelines.run.verify_tables._TIE", {"fp32": 1e9})
        assert CLEAN not in findings(made)
        monkeypatch.setattr("pipelines.run.verify_tables._TIE", {"fp32": 1e-4})
        assert f"{CLEAN}: 12 of 12 images are predicted differently now" in findings(made)


def regrouped(sizes: list[int], rows: int = 12) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        source = pq.ParquetFile(file)
        whole = source.read()
        written(file, pa.concat_tables([whole, whole]).slice(0, rows), sizes, source.schema_arrow.metadata)

    return change


def cut(share: float) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)]) and None


def as_text(file: Path) -> None:
    rewrite(file, "label", lambda values: [str(value) for value in values])


def without(column: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        source = pq.ParquetFile(file)
        written(file, source.read().drop_columns([column]), [3, 3, 3, 3], source.schema_arrow.metadata)

    return change


DAMAGES: list[tuple[str, str, Callable[[Path], Any], str]] = [
    ("empty", OUTCOME, lambda file: file.write_bytes(b""), "cannot be read"),
    ("no parquet", OUTCOME, lambda file: file.write_bytes(b"PAR1 not at all PAR1"), "cannot be read"),
    ("half", OUTCOME, cut(0.5), "cannot be read"),
    ("end", IMAGES, cut(0.99), "cannot be read"),
    ("a folder", CLEAN, lambda file: (file.unlink(), file.mkdir()), ""),
    ("fewer chunks", OUTCOME, regrouped([3, 3, 3], 9), "holds 9 rows in 3 chunks, not 12 in 4"),
    ("more chunks", OUTCOME, regrouped([3] * 5, 15), "holds 15 rows in 5 chunks, not 12 in 4"),
    ("other chunks", CLEAN, regrouped([4, 4, 4]), "holds 12 rows in 3 chunks, not 12 in 4"),
    ("no rows", IMAGES, regrouped([], 0), "holds 0 rows in 0 chunks"),
    ("ids", OUTCOME, lambda f: rewrite(f, "image_id", lambda v: v[::-1]), "does not hold the images, or the labels"),
    ("labels", CLEAN, lambda f: rewrite(f, "label", lambda v: v + 1), "does not hold the images, or the labels"),
    ("text", OUTCOME, as_text, "chunk 0 has the columns image_id string, label string"),
    ("column", OUTCOME, without("adversarial_confidence"), "they are not those of this table"),
    ("image column", IMAGES, without("image"), "they are not those of this table"),
    ("nulls", OUTCOME, lambda f: rewrite(f, "adversarial_prediction", lambda v: [None, *v[1:].tolist()]),
     "chunk 0 has empty cells in adversarial_prediction"),
    ("confidence", CLEAN, lambda f: rewrite(f, "confidence", lambda v: (v / 2).astype(np.float32)),
     "12 of 12 images have another confidence now"),
    ("NaN", CLEAN, lambda f: rewrite(f, "confidence", lambda v: np.where(np.arange(12) < 2, np.float32("nan"), v)),
     "chunk 0 is damaged (confidence is not finite for "),
    ("infinite", IMAGES, lambda f: rewrite(f, "l2", lambda v: np.where(np.arange(12) < 2, np.float32("inf"), v)),
     "chunk 0 is damaged (l2 is not finite for "),
    ("rows recorded", OUTCOME, lambda f: described(f, lambda own: own | {"rows": [12]}), "or does not say so"),
    ("rows nonsense", OUTCOME, lambda f: described(f, lambda own: own | {"rows": "many"}), "or does not say so"),
    ("fingerprint", OUTCOME, lambda f: described(f, lambda own: own | {"fingerprint": "0"}), "settings recorded"),
    ("inputs", IMAGES, lambda f: described(f, lambda own: own | {"seed": 9}, "witness.inputs"), "settings recorded"),
    ("inputs nonsense", IMAGES, lambda f: described(f, lambda own: [own], "witness.inputs"), "settings recorded"),
    ("record nonsense", IMAGES, lambda f: described(f, lambda own: [own]), "settings recorded"),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "damage", "finding"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_a_damaged_table_is_named(
    made: HandMade, folder: str, damage: Callable[[Path], Any], finding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(table(made, folder))
    assert main(["verify", str(made.file), "--json"]) == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    if finding:
        found = json.loads(said.out)["findings"]
        assert any(line.startswith(f"{folder}: ") and finding in line for line in found), found
    else:  # to the store it is no file, so it is missing
        assert "`witness evaluate` has to come first" in said.err


def test_a_network_that_prints_when_it_predicts_leaves_the_result_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "hand_made_networks", sys)  # what was there comes back at the end
    monkeypatch.setattr(factories, "_loaded", {})
    del sys.modules["hand_made_networks"]
    experiment = hand_made(tmp_path, compute={"chunk": 3})
    code = tmp_path / "hand_made_networks.py"
    code.write_text(code.read_text().replace("nn.Flatten()", "Chatty()") + CHATTY)
    finish(experiment.blueprint())
    capfd.readouterr()
    assert main(["verify", str(experiment.file), "--json"]) == 0
    output, errors = capfd.readouterr()
    assert json.loads(output)["findings"] == []
    assert "predicting aloud" in errors


def test_the_table_of_another_cell_is_named(made: HandMade) -> None:
    other = table(made, "outcomes/aligned/mi/twin")
    table(made, OUTCOME).write_bytes(other.read_bytes())
    assert f"{OUTCOME}: the settings recorded in the file are not those that its name stands for" in findings(made)


@pytest.mark.slow
def test_no_flipped_bit_ends_the_check_or_changes_a_row_unseen(made: HandMade) -> None:
    """Anywhere in the file: pages, their headers, and the footer, parts of which nothing reads."""
    file, rng = table(made, OUTCOME), np.random.default_rng(0)
    content, rows = file.read_bytes(), pq.read_table(file)
    found = 0
    for position in map(int, rng.integers(0, len(content), 24)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(damaged))
        if any(line.startswith(f"{OUTCOME}: ") for line in verified(made, sample=12).findings):
            found += 1
        else:
            assert pq.ParquetFile(file).read().equals(rows), position
    assert found > 8  # of 24


class TestNetworks:
    def test_edited_weights(self, made: HandMade) -> None:
        file = results(made) / "models/aligned/model.safetensors"
        state = load_file(file)
        save_file({name: -value for name, value in state.items()}, file)
        found = findings(made)
        assert "aligned: its weights are not those that the results were made with" in found
        assert "outcomes/aligned/pgd/@self: " in found and "are predicted differently now" in found

    @pytest.mark.parametrize("content", [b"", b"\xff" * 100, b'{"a": 1}'])
    def test_damaged_weights(self, made: HandMade, content: bytes) -> None:
        (results(made) / "models/aligned/model.safetensors").write_bytes(content)
        assert "aligned: its weights cannot be read (" in findings(made)

    def test_missing_weights(self, made: HandMade) -> None:
        (results(made) / "models/aligned/model.safetensors").unlink()
        assert "aligned: its weights cannot be read (" in findings(made)

    @pytest.mark.parametrize(
        ("change", "finding"),
        [
            (lambda card: card | {"fingerprint": "0"}, "models/aligned: not what the settings, files and"),
            (lambda card: card | {"weights": "0" * 64}, "aligned: its weights are not those that the"),
            (lambda card: card | {"inputs": card["inputs"] | {"seed": 9}}, "card.json: the inputs that it records"),
            (lambda card: card | {"name": "another"}, "card.json: describes another network"),
            (lambda card: card | {"model": card["model"] | {"mean": [0.5], "std": [0.5]}}, "describes another network"),
            (lambda card: card | {"model": card["model"] | {"args": {"width": 9}}}, "describes another network"),
            (lambda card: card | {"model": 5}, "card.json: not a card that Witness wrote"),
            (lambda card: {"name": card["name"], "weights": card["weights"]}, "models/aligned: not what the settings"),
            (lambda card: [card], "models/aligned/card.json: missing or damaged"),
        ],
    )  # fmt: skip
    def test_an_edited_card(self, made: HandMade, change: Callable[[dict[str, Any]], Any], finding: str) -> None:
        file = results(made) / "models/aligned/card.json"
        file.write_text(json.dumps(change(json.loads(file.read_text()))))
        found = findings(made)
        assert finding in found, found

    def test_an_edited_curve(self, made: HandMade) -> None:
        file = results(made) / "models/aligned/curves.csv"
        file.write_text(file.read_text().replace("3.0", "0.1"))
        assert "models/aligned/curves.csv: not the curve that the card was written with" in findings(made)

    def test_changed_weights_of_a_target(self, made: HandMade) -> None:
        state = load_file(made.folder / "twin.safetensors")
        save_file({name: -value for name, value in state.items()}, made.folder / "twin.safetensors")
        found = findings(made)
        assert found == "clean/twin and 6 more tables: made with other settings or models (other weights of the model)"

    def test_changed_code_of_a_factory(self, made: HandMade) -> None:
        code = made.folder / "hand_made_networks.py"
        code.write_text(code.read_text() + "\nx = 1\n")
        (found,) = verified(made).findings
        assert found.startswith("models/aligned: not what the settings, files and code here would make (other code of ")
        assert "hand_made_networks of the source" in found


def test_a_damaged_image_is_named(made: HandMade) -> None:
    """Its file has the size and time that it had, so its manifest is believed."""
    import os

    blueprint = made.blueprint()
    blueprint.inspected.save(blueprint.store)
    file = made.folder / "images.npz"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(bytes(content))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = findings(made)
    assert "data.test: " in found and "Traceback" not in found


class TestReport:
    def edit(self, made: HandMade, name: str) -> None:
        """All rates set to 99."""
        file = results(made) / "report" / name
        lines = [line.split(",") for line in file.read_text().splitlines()]
        rate = lines[0].index("rate")
        edited = [lines[0], *([*line[:rate], "99.0", *line[rate + 1 :]] for line in lines[1:])]
        file.write_text("".join(",".join(line) + "\n" for line in edited))

    def test_edited_rates_are_found_against_the_outcomes(self, made: HandMade) -> None:
        self.edit(made, "transfer.csv")
        assert verified(made).findings == [
            "report/transfer.csv: not the table that the outcomes give; `witness report` makes it again"
        ]

    def test_also_where_the_hashes_were_edited_too(self, made: HandMade) -> None:
        from hashlib import sha256

        self.edit(made, "transfer.csv")
        kept = results(made) / "report/report.json"
        content = json.loads(kept.read_text())
        content["files"]["transfer.csv"] = sha256((results(made) / "report/transfer.csv").read_bytes()).hexdigest()
        kept.write_text(json.dumps(content))
        assert "report/transfer.csv: not the table that the outcomes give" in findings(made)

    @pytest.mark.parametrize("name", ["report.html", "gain.png", "transfer.png"])
    def test_an_edited_page_or_figure(self, made: HandMade, name: str) -> None:
        file = results(made) / "report" / name
        file.write_bytes(file.read_bytes().replace(b"e", b"f", 1))
        assert verified(made).findings == [
            f"report/{name}: edited, damaged or missing since it was made; `witness report` makes it again"
        ]

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1\n1,2,3\n"])
    def test_a_damaged_table(self, made: HandMade, content: bytes) -> None:
        (results(made) / "report/contrasts.csv").write_bytes(content)
        assert "report/contrasts.csv: not the table that the outcomes give" in findings(made)

    def test_a_missing_report_is_said(self, made: HandMade) -> None:
        shutil.rmtree(results(made) / "report")
        found = verified(made)
        assert found.findings == [] and "the report, which is missing or out of date" in found.trusted[0]


class TestResolved:
    @pytest.mark.parametrize(
        ("old", "new", "finding"),
        [
            ("steps: 4", "steps: 40", "experiment.yaml: not the settings of these results"),
            ("source: near", "source: [", "experiment.yaml: not the settings of these results"),
            ("#   near: ", "#   near: 0", "experiment.yaml: the hashes in its comments are not"),
            ("# images:", "# pictures:", "experiment.yaml: the hashes in its comments are not"),
        ],
    )
    def test_edited_settings_and_hashes(self, made: HandMade, old: str, new: str, finding: str) -> None:
        file = results(made) / "experiment.yaml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        assert findings(made).startswith(finding)

    def test_a_file_that_is_no_text(self, made: HandMade) -> None:
        (results(made) / "experiment.yaml").write_bytes(b"\xff\xfe\0")
        assert "experiment.yaml: cannot be read" in findings(made)


def test_what_is_missing_is_no_finding(made: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    table(made, OUTCOME).unlink()
    assert main(["verify", str(made.file)]) == 1
    assert (
        "`witness evaluate` has to come first: these are missing: outcomes/aligned/pgd/twin" in capsys.readouterr().err
    )
    finish(made.blueprint())
    assert verified(made).findings == []
