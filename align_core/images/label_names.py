"""Lists of class names by number, for label files whose numbers stand in an order of their own, as ImageNet's do."""

import csv
from pathlib import Path

from align_core.errors import InputError, reason_of
from align_core.images.files import open_text
from align_core.images.label_file import is_integer

_COLUMNS = (("ILSVRC2012_ID", "WNID"), ("number", "name"))
_INNER = "num_children"
FROM_META_MAT = (
    "write it from the devkit's meta.mat: python -c \"import scipy.io; print('ILSVRC2012_ID,WNID'); [print(s[0], s[1], "
    "sep=',') for s in scipy.io.loadmat('meta.mat', squeeze_me=True)['synsets'] if s[4] == 0]\" > synsets.csv"
)
"""How to make such a list for ImageNet."""


def read_label_names(file: Path) -> dict[int, str]:
    """The class name of each number, from a CSV file with the columns `ILSVRC2012_ID` and `WNID`, or `number`, `name`.

    Rows of synsets that have others below them (`num_children` above 0) are skipped: they are no classes. Raises
    InputError for a file that is unreadable or has other columns, and for a number or a name that is none or is listed
    twice.
    """
    if file.suffix.lower() == ".mat":
        raise InputError(f"{file}: is a file of MATLAB, and `label_names` is a CSV file; {FROM_META_MAT}")
    names: dict[int, str] = {}
    try:
        with open_text(file) as opened:
            table = csv.DictReader(opened)
            columns = list(table.fieldnames or ())
            found = next((pair for pair in _COLUMNS if set(pair) <= set(columns)), None)
            if found is None:
                listed = ", ".join(f"`{name}`" for name in columns) or "none"
                wanted = " or ".join(f"`{number}` and `{name}`" for number, name in _COLUMNS)
                raise InputError(f"{file}: needs the columns {wanted}; its columns are: {listed}")
            for row in table:
                if (row.get(_INNER) or "0").strip() == "0":
                    _add(names, f"{file}, line {table.line_num}", *((row[column] or "").strip() for column in found))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{file}: cannot be read as a CSV file of UTF-8 text ({reason_of(problem)})") from problem
    return names


def _add(names: dict[int, str], where: str, number: str, name: str) -> None:
    if not is_integer(number) or not name or is_integer(name):
        raise InputError(f"{where}: {number!r}, {name!r} are not the number of a class and its name")
    if int(number) in names or name in names.values():
        raise InputError(f"{where}: the number {number} or the class {name!r} is listed twice")
    names[int(number)] = name
