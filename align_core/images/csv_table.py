"""CSV files with a header, as users write them: columns by name, and lines by number."""

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from align_core.errors import InputError, reason_of
from align_core.images.files import open_text


class Line(NamedTuple):
    """One line: its number in the file, and its cells by column, None for those that it ends before."""

    number: int
    cells: dict[str, str | None]


class CsvTable:
    """A CSV file with a header.

    Args:
        file: its path, which messages name.
        text: its content.

    Attributes:
        columns: the names in the header, without spaces around them.
    """

    def __init__(self, file: Path, text: str) -> None:
        self.file, self._rows = file, csv.DictReader(io.StringIO(text, newline=""))
        try:
            self.columns = [name.strip() for name in self._rows.fieldnames or ()]
        except csv.Error as problem:
            raise self._unreadable(problem) from problem
        self._rows.fieldnames = self.columns

    def check_once(self, *names: str) -> None:
        """Raises InputError where a column of one of these names stands twice, so that which is meant is not known."""
        for name in names:
            if self.columns.count(name) > 1:
                raise InputError(f"{self.file}: has {self.columns.count(name)} columns `{name}`; rename all but one")

    def lines(self) -> Iterator[Line]:
        """The lines below the header, but for empty ones.

        Raises InputError where they are no CSV, and for a line with a cell for which the header has no column, because
        the cells before it may then be in wrong ones.
        """
        try:
            for cells in self._rows:
                number, more = self._rows.line_num, cells.pop(None, [])
                if any(map(str.strip, more)):
                    raise InputError(
                        f"{self.file}, line {number}: has {len(self.columns) + len(more)} cells, and the header has "
                        f"{len(self.columns)}; put quotes around a cell that holds a comma"
                    )
                yield Line(number, cells)
        except csv.Error as problem:
            raise self._unreadable(problem) from problem

    def _unreadable(self, problem: csv.Error) -> InputError:
        return InputError(f"{self.file}: cannot be read as a CSV file ({problem})")


def read_text(file: Path) -> str:
    """The content of a text file, with its line ends as they are. Raises InputError."""
    try:
        with open_text(file) as opened:
            return opened.read()
    except UnicodeDecodeError as problem:
        is_utf16 = problem.start == 0 and problem.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        reason = "it is UTF-16" if is_utf16 else reason_of(problem)
        raise InputError(f"{file}: cannot be read as a file of UTF-8 text ({reason}); save it as UTF-8") from problem
    except (OSError, ValueError) as problem:
        raise InputError(f"{file}: cannot be read as a file of UTF-8 text ({reason_of(problem)})") from problem
