"""Numbers in tables are finite: one that is not says that a prediction was none, however it was written down."""

import pyarrow as pa
import pyarrow.compute as pc


def check_finite(table: pa.Table) -> None:
    """Raises ArrowInvalid, naming the column and the images, where a number is NaN or infinite. Empty cells are let be.

    Tables of old versions of Witness may hold such numbers: they took NaN among the logits for a prediction of class 0.
    """
    for own in table.schema:
        if not pa.types.is_floating(own.type):
            continue
        is_bad = pc.invert(pc.fill_null(pc.is_finite(table[own.name]), True))
        if not pc.any(is_bad).as_py():
            continue
        count = pc.sum(is_bad).as_py()
        if "image_id" in table.column_names:
            ids = table["image_id"].filter(is_bad).slice(0, 3).to_pylist()
            where = ", ".join(map(str, ids)) + (f" and {count - 3} more" if count > 3 else "")
        else:
            where = f"{count} images"
        raise pa.ArrowInvalid(f"{own.name} is not finite for {where}")
