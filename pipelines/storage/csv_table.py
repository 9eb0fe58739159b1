"""Tables as CSV bytes: the one way in which Witness writes and reads `.csv` files.

The bytes depend on the rows alone (UTF-8, line ends of "\\n" on every system), so that a report made again is the same.
"""

import csv
import io
from collections.abc import Mapping, Sequence


def to_csv(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> bytes:
    """Writes a header and one line per row, in the order given.

    Args:
        rows: maps column names to values. None, and a column that a row lacks, become an empty cell; any other value is
            written as `str` gives it, so round figures first.
        columns: the columns and their order.

    Raises ValueError if a row has a key that is not in `columns`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def from_csv(content: bytes) -> list[dict[str, str]]:
    """Reads the rows of a CSV file that has a header. Every cell is text; what was None is `""`."""
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
