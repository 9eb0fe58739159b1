"""Tables as CSV: the one place in which Witness writes and reads `.csv` files.

The bytes depend on the rows alone (UTF-8, lines end with "\\n" on every system), so a table made again is identical.
"""

import csv
import io
from collections.abc import Mapping, Sequence


def to_csv(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> bytes:
    """Returns a CSV file with a header and a line per row, in the order given.

    Args:
        rows: values by column name. None, and a column that a row lacks, become an empty cell. Any other value is
            written as `str` gives it, so figures have to be rounded before.
        columns: the columns and their order.

    Raises ValueError if a row has a key that is not in `columns`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def from_csv(content: bytes) -> list[dict[str, str]]:
    """Returns the rows of a CSV file with a header. Every cell is text; a cell that was None is `""`."""
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
