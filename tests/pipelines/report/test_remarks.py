"""What the page and the run say of tables that are there, and are not quite what they seem."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from hand_made import IMAGES, hand_made

from pipelines.report.page import make_report
from pipelines.stages.blueprint import Blueprint


def crafted_in_passes_of(blueprint: Blueprint, surrogate: str, attack: str, sizes: list[int]) -> None:
    """Makes a finished table anew, each of its chunks as from a device with passes of another size."""
    table = blueprint.all_adversarial()[surrogate, attack]
    chunks = [table.read_chunk(blueprint.store, number, rows) for number, rows in enumerate(blueprint.rows)]
    blueprint.store.delete(table.finished_file)
    for number, (rows, size) in enumerate(zip(chunks, sizes, strict=True)):
        column = rows.schema.get_field_index("pass_rows")
        rows = rows.set_column(column, "pass_rows", pa.array(np.full(len(rows), size, np.int32)))
        table.write_chunk(blueprint.store, number, rows)
    assert table.finish(blueprint.store, blueprint.rows) == []


def test_a_table_of_passes_of_several_sizes_is_named_with_them(tmp_path: Path) -> None:
    blueprint = hand_made(tmp_path, compute={"chunk": IMAGES // 3}).finish()
    said: list[str] = []
    make_report(blueprint, said.append)
    assert said == []
    assert "passes of" not in blueprint.store.read("report/report.html").decode()
    crafted_in_passes_of(blueprint, "aligned", "mi", [1000, 100, 100])
    crafted_in_passes_of(blueprint, "source", "mi", [50, 50, 50])  # one size, whichever it is
    blueprint.store.delete("report/report.json")
    make_report(blueprint, said.append)
    (line,) = said
    assert line.startswith("adversarial/aligned/mi: its chunks were crafted in passes of 100 and 1,000 images")
    assert "`compute.pass` in the experiment file makes all chunks alike" in line
    page = blueprint.store.read("report/report.html").decode()
    assert page.count("passes of") == page.count(f"<p>{line}</p>") == 1
