"""Lists of class names by number, for label files whose numbers stand in an order of their own, as ImageNet's do."""

from pathlib import Path

from align_core.errors import InputError
from align_core.images.csv_table import CsvTable, read_text
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
    InputError for a file that is unreadable, has other columns or lists nothing, and for a number or a name that is
    none or is listed twice.
    """
    if file.suffix.lower() == ".mat":
        raise InputError(f"{file}: is a file of MATLAB, and `label_names` is a CSV file; {FROM_META_MAT}")
    table, names = CsvTable(file, read_text(file)), dict[int, str]()
    found = next((pair for pair in _COLUMNS if set(pair) <= set(table.columns)), None)
    if found is None:
        listed = ", ".join(f"`{name}`" for name in table.columns) or "none"
        wanted = " or ".join(f"`{number}` and `{name}`" for number, name in _COLUMNS)
        raise InputError(f"{file}: needs the columns {wanted}; its columns are: {listed}")
    table.check_once(*found, _INNER)
    for number, cells in table.lines():
        if (cells.get(_INNER) or "0").strip() == "0":
            _add(names, f"{file}, line {number}", *((cells[column] or "").strip() for column in found))
    if not names:
        raise InputError(f"{file}: lists no class below its header")
    return names


def _add(names: dict[int, str], where: str, number: str, name: str) -> None:
    if not is_integer(number) or not name or is_integer(name):
        raise InputError(f"{where}: {number!r}, {name!r} are not the number of a class and its name")
    if int(number) in names or name in names.values():
        raise InputError(f"{where}: the number {number} or the class {name!r} is listed twice")
    names[int(number)] = name
