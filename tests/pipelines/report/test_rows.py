"""The columns of the report's tables: that rows are made of them in their order, and that each is explained."""

import ast
import inspect

import pytest
from hand_made import hand_made

from pipelines.report.page import make_report
from pipelines.report.rows import COLUMNS, ContrastRow, MeanRow, SeedRow, SurrogateRow, TimeRow, TransferRow
from pipelines.stages.times import CraftingTimes


@pytest.mark.parametrize("row", [TransferRow, MeanRow, ContrastRow, SurrogateRow, SeedRow, TimeRow])
def test_every_column_has_a_docstring_of_its_own(row):
    """Whoever meets a column in a table must find its meaning and its unit in one place."""
    (definition,) = ast.parse(inspect.getsource(row)).body
    described = [
        field.target.id
        for field, text in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and len(text.value.value) > 10
    ]
    own = [name for name in row.__annotations__ if row is not MeanRow or name not in TransferRow.__annotations__]
    assert described == own


def test_the_columns_are_those_of_the_rows(tmp_path, with_reasons):
    """The type checker checks the names of the columns, but not their order, which the CSV files and the page show."""
    blueprint = hand_made(tmp_path, seeds=[0, 1]).finish()
    times = CraftingTimes(blueprint.store)
    times.note(blueprint.adversarial(blueprint.by_name["aligned~0"], "mi").fingerprint, "cpu, 1 thread", 8, 2.0)
    times.save()
    report, _ = make_report(blueprint)
    of_reasons, _ = make_report(with_reasons.blueprint())
    for table, found in report.tables().items():
        found = found or of_reasons.tables()[table]
        assert found, table
        assert {tuple(row) for row in found} == {COLUMNS[table]}
    assert {tuple(row) for row in report.means()} == {(*COLUMNS["transfer"], "clean_accuracy")}
    assert list(report.tables()) == list(COLUMNS)
