"""Label files: which image of a folder has which label, in the forms in which the field hands them on.

A file with a header is recognised by its columns, and one without by its first line. A new form is an entry of `FORMS`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from align_core.bounds import near_names
from align_core.errors import InputError
from align_core.images.csv_table import CsvTable, read_text
from align_core.images.decoding import IMAGE_SUFFIXES
from align_core.images.labels import TARGETED


@dataclass(frozen=True)
class Form:
    """One form of label files.

    Attributes:
        whose: it is, as notes name it; "" for our own form, which needs no note.
        image, label, targeted: the columns with the image, its label, and the class to lead it to.
        first: the number of the first class, where labels are integers.
        are_integers: whether all labels must be.
        has_boxes: whether a label is followed by the bounding box of an object, and perhaps by further such pairs.
        needs_names: whether a line has a label alone, and integers have an order of their own, so that only a list of
            names tells the classes.
    """

    whose: str = ""
    image: str = "path"
    label: str = "label"
    targeted: str = TARGETED
    first: int = 0
    are_integers: bool = False
    has_boxes: bool = False
    needs_names: bool = False


FORMS = (
    Form(),
    Form("TransferAttack", image="filename"),
    Form("NIPS 2017", "ImageId", "TrueLabel", "TargetClass", first=1, are_integers=True),
    Form("TA-Bench", "image_name", "class_index", are_integers=True),
    Form("ImageNet at Kaggle", "ImageId", "PredictionString", has_boxes=True),
)
"""Files with a header. Where one has the columns of several forms, the first of these counts."""
PAIRS = Form("a list of images and labels, without a header")
GROUND_TRUTH = Form("ImageNet's validation images, a label a line, without a header", first=1, needs_names=True)
GROUND_TRUTH_NAME = "ILSVRC2012_val_{:08d}"
"""The name, without a suffix, of the image that a line of `GROUND_TRUTH` is about; lines count from 1."""


class Row(NamedTuple):
    """One image: the line that lists it, and its name, its label and the class that it is to be led to as written."""

    line: int
    image: str
    label: str
    targeted: str | None = None


@dataclass(frozen=True)
class LabelFile:
    """What a label file says.

    Attributes:
        file: where it lies.
        form: that it has.
        rows: its images, in its order.
    """

    file: Path
    form: Form
    rows: list[Row]

    @property
    def has_integers(self) -> bool:
        """Whether all labels are integers, and therefore numbers of classes."""
        return all(is_integer(row.label) for row in self.rows)


def read_label_file(file: Path, image: str | None = None, label: str | None = None) -> LabelFile:
    """Reads a label file of any form.

    Args:
        file: the file.
        image, label: names of columns, in place of those of the forms.

    Raises InputError for a file of no form, and for a row without an image or a label, naming the line.
    """
    text = read_text(file)
    form = _form_without_header(next((line.strip() for line in text.splitlines() if line.strip()), ""))
    if form is None:
        form, rows = _table(file, text, image, label)
    elif image or label:
        raise InputError(
            f"{file}: has no header, so that its columns have no names; leave `image_column` and `label_column` out"
        )
    else:
        rows = list(_lines(text, form))
        form = replace(form, are_integers=is_integer(rows[0].label))
    for row in rows:
        _check_row(file, form, row)
    return LabelFile(file, form, rows)


def is_integer(label: str) -> bool:
    """Whether a label is written as a whole number."""
    return re.fullmatch(r"[+-]?\d{1,30}", label, re.ASCII) is not None


def _form_without_header(start: str) -> Form | None:
    """The form of a file that begins with this line; None where the line can be a header."""
    words = start.rsplit(maxsplit=1)
    if "," in start or not words:
        return None
    if len(words) == 1:
        return GROUND_TRUTH if re.fullmatch(r"\d+|n\d{8}", start, re.ASCII) else None
    return PAIRS if Path(words[0]).suffix.lower() in IMAGE_SUFFIXES else None


def _lines(text: str, form: Form) -> Iterator[Row]:
    for number, line in enumerate(text.rstrip().splitlines(), start=1):
        if form.needs_names:
            yield Row(number, GROUND_TRUTH_NAME.format(number), line.strip())
        else:
            image, label = (*line.rsplit(maxsplit=1), "", "")[:2]
            yield Row(number, image, label)


def _table(file: Path, text: str, image: str | None, label: str | None) -> tuple[Form, list[Row]]:
    table, rows = CsvTable(file, text), []
    form = _form_with(table.columns, image, label)
    if form is None:
        raise InputError(f"{file}: {_columns_missing(table.columns, image, label)}")
    table.check_once(form.image, form.label, form.targeted)
    for number, cells in table.lines():
        where, path, own = f"{file}, line {number}", cells[form.image], cells[form.label]
        if path is None or own is None:
            raise InputError(f"{where}: ends before the column `{form.image if path is None else form.label}`")
        targeted = (cells[form.targeted] or "").strip() if form.targeted in table.columns else None
        rows.append(Row(number, path, _of_boxes(where, own) if form.has_boxes else own.strip(), targeted))
    return form, rows


def _form_with(columns: Sequence[str], image: str | None, label: str | None) -> Form | None:
    """The form of a file with these columns, of which two may be named by the user."""

    def unlikely(form: Form) -> tuple[bool, ...]:
        return label not in (None, form.label), label != form.targeted, image not in (None, form.image)

    for form in sorted(FORMS, key=unlikely):
        own = replace(form, image=image or form.image)
        if label == form.targeted:  # its numbers are as those of the labels
            own = replace(own, label=form.targeted, targeted=TARGETED)
        elif label not in (None, form.label):
            own = Form(image=own.image, label=str(label))
        if own.image in columns and own.label in columns:
            return replace(own, whose="") if own.label == "label" and own.targeted not in columns else own
    return None


def _columns_missing(columns: Sequence[str], image: str | None, label: str | None) -> str:
    listed = f"there are: {', '.join(f'`{name}`' for name in columns)}" if columns else "the file is empty"
    for key, name in (("image_column", image), ("label_column", label)):
        if name is not None and name not in columns:
            near = near_names(name, columns)
            return f"has no column `{name}`, which `{key}` names; {listed}" + (
                f"; did you mean {near}?" if near else ""
            )
    needed = f"needs the columns `path` and `label`, or those of another form; {listed}"
    if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in columns):
        return f"{needed}. Is its first line an image's? Then write the header `path,label` above it"
    if len(columns) == 1:
        return f"{needed}. Put commas between the columns"
    return f"{needed}. Name them as `image_column` and `label_column`"


def _of_boxes(where: str, written: str) -> str:
    """The one class of the objects in an image, each of which is written as a class and four numbers."""
    words = written.split()
    classes = sorted(set(words[::5]))
    if len(words) % 5 or len(classes) != 1:
        raise InputError(f"{where}: {written[:60]!r} is not one class with the four numbers of a box after it")
    return classes[0]


def _check_row(file: Path, form: Form, row: Row) -> None:
    where, label = f"{file}, line {row.line}", row.label
    if not row.image.strip():
        raise InputError(f"{where}: names no image")
    if not label or (_is_number(label) and not is_integer(label)):
        raise InputError(f"{where}: the label {label!r} is neither a class index nor a class name")
    if form.are_integers and not is_integer(label):
        raise InputError(f"{where}: the label {label!r} is no integer, as all labels of this file should be")


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
