"""`witness verify` finds and names every change that was made to a finished experiment, and reports no other."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from digits_experiment import Finished
from safetensors.torch import load_file, save_file

from pipelines.cli import main
from pipelines.progress import Progress
from pipelines.run.request import Request
from pipelines.run.verification import Verification
from pipelines.run.verify import verify_experiment
from pipelines.run.verify_inputs import check_image_sets

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def found(finished: Finished) -> Any:
    return verify_experiment(Request(finished.file, quiet=True))


def test_no_problem_is_found_in_an_experiment_as_a_run_left_it(finished: Finished, found: Any) -> None:
    assert found.findings == []
    tables = len(list(finished.folder.glob("adversarial/*/*/*.parquet")))
    predicted = len(list(finished.folder.glob("outcomes/*/*/*/*.parquet"))) + len(
        list(finished.folder.glob("clean/*/*.parquet"))
    )
    assert found.checked["tables"] == tables + predicted
    assert found.checked["rows"] == 60 * (tables + predicted)
    assert found.checked["predictions made again"] == 20 * predicted
    assert found.checked["images"] == 256 + 60


def test_other_originals_are_reported_where_they_were_cropped(tiny_blueprint: Callable[[str], Any]) -> None:
    for crop, expected in (("none", 0), ("random_resized", 1)):
        blueprint = tiny_blueprint(f"align.augment.crop={crop}")
        manifests = blueprint.inspected.manifests
        manifests["train"] = replace(manifests["train"], originals=["other"] * len(manifests["train"]))
        verification = Verification()
        check_image_sets(blueprint, verification, Progress(quiet=True))
        assert len(verification.findings) == expected
        assert all(finding.startswith("data.train: the files show the same") for finding in verification.findings)


def column(name: str, change: Callable[[np.ndarray], Any]) -> Change:
    def changed(table: pa.Table) -> pa.Table:
        values = table[name].to_numpy().copy()
        return table.set_column(table.schema.get_field_index(name), name, pa.array(change(values)))

    return changed


def set_to(value: Any, rows: slice = slice(0, 1)) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[rows] = value
        return values

    return change


def brighter(table: pa.Table) -> pa.Table:
    pixels = table["image"].combine_chunks().to_numpy_ndarray().copy()
    pixels[0] = np.where(pixels[0] > 127, pixels[0] - 60, pixels[0] + 60)
    images = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    return table.set_column(table.schema.get_field_index("image"), "image", images)


def rewrite(file: Path, change: Change) -> None:
    """Changes a finished table and leaves its row groups and metadata as they were."""
    source = pq.ParquetFile(file)
    groups = [source.read_row_group(index) for index in range(source.num_row_groups)]
    table = change(pa.concat_tables(groups))
    with pq.ParquetWriter(file, table.schema.with_metadata(source.schema_arrow.metadata)) as writer:
        start = 0
        for group in groups:
            writer.write_table(table.slice(start, len(group)), row_group_size=len(group))
            start += len(group)


OUTCOME, IMAGES = "outcomes/aligned/pgd/mlp", "adversarial/aligned/pgd"


@pytest.mark.parametrize(
    ("folder", "change", "finding"),
    [
        (IMAGES, brighter, "1 images of chunk 0 lie outside the ball of 12/255: 01200"),
        (IMAGES, column("l2", set_to(0.5)), "are not at the distance recorded in `l2`: 01200"),
        (IMAGES, column("linf", set_to(0.001)), "are not at the distance recorded in `linf`: 01200"),
        (
            OUTCOME,
            column("adversarial_prediction", set_to(10)),
            "1 images of chunk 0 have a prediction outside 0 to 9: 01200",
        ),
        (OUTCOME, column("adversarial_confidence", set_to(1.5)), "have a confidence outside 0 to 1: 01200"),
        (OUTCOME, column("label", set_to(11)), "chunk 0 does not hold the images, or the labels, that it should"),
        (OUTCOME, column("image_id", set_to("01201")), "chunk 0 does not hold the images, or the labels, that it"),
        (
            OUTCOME,
            column("adversarial_prediction", lambda values: (values + 1) % 10),
            "20 of 20 images are predicted differently now",
        ),
    ],
    ids=["image", "l2", "linf", "class", "confidence", "label", "id", "predictions"],
)
def test_a_changed_table_is_found(
    finished: Finished, tmp_path: Path, folder: str, change: Change, finding: str
) -> None:
    request, copy = finished.copied(tmp_path)
    (file,) = (copy / folder).iterdir()
    rewrite(file, change)
    findings = verify_experiment(request).findings
    followers = ("report",) if folder == OUTCOME else ("report", "outcomes/aligned/pgd/")  # computed from that folder
    assert all(found.startswith((folder, *followers)) for found in findings)
    assert any(found.startswith(folder) and finding in found for found in findings), findings


def test_damaged_cut_off_and_renamed_files_are_found(finished: Finished, tmp_path: Path) -> None:
    request, copy = finished.copied(tmp_path)
    damaged, shorter, renamed = (next((copy / f"outcomes/{s}/pgd/mlp").iterdir()) for s in ("source", "warm", "other"))
    content = bytearray(damaged.read_bytes())
    content[100] ^= 0xFF
    damaged.write_bytes(content)
    shorter.write_bytes(shorter.read_bytes()[:-100])
    renamed.write_bytes(next((copy / "outcomes/aligned/pgd/mlp").iterdir()).read_bytes())
    findings = " | ".join(verify_experiment(request, sample=0).findings)
    assert "outcomes/source/pgd/mlp: chunk 0 is damaged" in findings
    assert "outcomes/warm/pgd/mlp: cannot be read" in findings
    assert (
        "outcomes/other/pgd/mlp: the settings recorded in the file are not those that its name stands for" in findings
    )


def test_changed_weights_are_found_and_the_command_ends_with_1(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, copy = finished.copied(tmp_path)
    file = copy / "models/aligned/model.safetensors"
    state = load_file(file)
    name = next(name for name in state if name.endswith("weight"))
    save_file(state | {name: -state[name]}, file)
    assert main(["verify", str(finished.file), "--output", str(tmp_path), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings[0] == "aligned: its weights are not those that the results were made with"
    assert any("are predicted differently now" in finding for finding in findings[1:])


def test_an_unfinished_experiment_is_not_verified(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished.copied(tmp_path, "outcomes/source")
    assert main(["verify", str(finished.file), "--output", str(tmp_path)]) == 1
    assert "`witness evaluate` has to come first" in capsys.readouterr().err
