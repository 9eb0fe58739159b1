"""CSV files have exact bytes, and their cells are read back as text."""

import pytest

from pipelines.storage.csv_table import from_csv, to_csv


def test_the_bytes_are_exact():
    rows = [{"name": "a,b", "n": 3, "gain": -0.5}, {"gain": None, "n": 0, "name": 'é "x"\ny'}]
    assert to_csv(rows, ["name", "n", "gain"]) == 'name,n,gain\n"a,b",3,-0.5\n"é ""x""\ny",0,\n'.encode()


def test_a_column_that_a_row_lacks_is_empty():
    assert to_csv([{"b": 1}, {"a": 2}], ["a", "b"]) == b"a,b\n,1\n2,\n"


def test_a_key_that_is_not_a_column_is_refused():
    with pytest.raises(ValueError, match="extra"):
        to_csv([{"a": 1, "extra": 2}], ["a"])


def test_a_table_without_rows_is_a_header():
    assert to_csv([], ["a", "b"]) == b"a,b\n"
    assert from_csv(b"a,b\n") == []


def test_cells_are_read_back_as_text():
    rows = [{"name": 'é "x"\ny', "n": 3, "gain": None}, {"name": "a\r\nb", "n": 4, "gain": 0.25}]
    assert from_csv(to_csv(rows, ["name", "n", "gain"])) == [
        {"name": 'é "x"\ny', "n": "3", "gain": ""},
        {"name": "a\r\nb", "n": "4", "gain": "0.25"},
    ]
