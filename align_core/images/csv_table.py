"""CSV files with a header, as users write them: columns by name, and lines by number."""

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
        """The lines below the header, but for empty ones. Raises InputError where they are no CSV."""
        try:
            for cells in self._rows:
                yield Line(self._rows.line_num, cells)
        except csv.Error as problem:
            raise self._unreadable(problem) from problem

    def _unreadable(self, problem: csv.Error) -> InputError:
        return InputError(f"{self.file}: cannot be read as a CSV file ({problem})")


def read_text(file: Path) -> str:
    """The content of a text file, with its line ends as they are. Raises InputError."""
    try:
        with open_text(file) as opened:
            return opened.read()
    except (OSError, ValueError) as problem:
        raise InputError(f"{file}: cannot be read as a file of UTF-8 text ({reason_of(problem)})") from problem
