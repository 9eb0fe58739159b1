"""The columns of a Parquet image set: which hold images, labels and ids, and whether they are of a type that does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from align_core.bounds import near_names
from align_core.errors import InputError
from align_core.images.config import ImageSetConfig
from align_core.images.labels import TARGETED

_LEAST_LIKENESS = 0.5
_OWN_ID = "image_id"


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are used; `image_id` and `targeted` are None where there are none."""

    image: str
    label: str
    image_id: str | None = None
    targeted: str | None = None

    @property
    def without_images(self) -> list[str]:
        """All columns but that of the images, each once."""
        return sorted({name for name in (self.label, self.image_id, self.targeted) if name is not None})


def columns_of(path: Path, schemas: Mapping[Path, pa.Schema], config: ImageSetConfig) -> Columns:
    """The columns of the image set at `path`, whose files have these schemas.

    Raises InputError, naming the file and its columns, where one is missing, is in some files
    only, or has another type, also than in the other files.
    """
    image, label = config.image_column or "image", config.label_column or "label"
    optional = [name for name in (config.id_column or _OWN_ID, TARGETED) if name not in (image, label)]
    for file, schema in schemas.items():
        _check_present(file, schema.names, config)
        _check_once(file, schema.names, (image, label, *optional))
    found = [set(optional) & set(schema.names) for schema in schemas.values()]
    if any(others != found[0] for others in found):
        listed = " and ".join(f"`{name}`" for name in optional)
        raise InputError(f"{path}: a Parquet image set has the columns {listed} either in every file or in none")
    for file, schema in schemas.items():
        _check_image(file, schema, image)
        for name in found[0] | {label}:
            _check_label(file, schema, name, name == (config.id_column or _OWN_ID))
    for name in sorted(found[0] | {label}):
        _check_alike(schemas, name)
    own_id = config.id_column or (_OWN_ID if _OWN_ID in found[0] else None)
    return Columns(image, label, own_id, TARGETED if TARGETED in found[0] else None)


def class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The names of the column's ClassLabel, from the metadata that Hugging Face's datasets write; else none."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _check_present(file: Path, names: Sequence[str], config: ImageSetConfig) -> None:
    """Raises InputError where columns that are named in the settings, or else `image` and `label`, are missing."""
    listed = f"its columns are: {', '.join(f'`{name}`' for name in names)}"
    for key in ("image_column", "label_column", "id_column"):
        if (name := getattr(config, key)) is not None and name not in names:
            near = near_names(name, names, _LEAST_LIKENESS)
            mend = f"; did you mean {near}?" if near else ""
            raise InputError(f"{file}: has no column `{name}`, which `{key}` names; {listed}{mend}")
    missing = [name for name in ("image", "label") if getattr(config, f"{name}_column") is None and name not in names]
    if missing:
        near_ones = {name: near_names(name, names, _LEAST_LIKENESS) for name in missing}
        mends = [f"`{name}_column`" + (f" (perhaps {near})" if near else "") for name, near in near_ones.items()]
        raise InputError(
            f"{file}: a Parquet image set needs the columns `image` and `label` in every file, and here "
            f"{' and '.join(f'`{name}`' for name in missing)} {'is' if len(missing) == 1 else 'are'} missing; "
            f"{listed}. Name those that hold images and labels as {' and '.join(mends)}"
        )


def _check_once(file: Path, names: Sequence[str], used: Sequence[str]) -> None:
    """Raises InputError where a column that is used stands twice, so that which is meant is not known."""
    for name in used:
        if names.count(name) > 1:
            raise InputError(f"{file}: has {names.count(name)} columns `{name}`; rename all but one")


def _check_image(file: Path, schema: pa.Schema, name: str) -> None:
    """Raises InputError for a column that can hold no images."""
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        if kind.get_field_index("bytes") < 0:
            fields = ", ".join(f"`{kind.field(i).name}`" for i in range(kind.num_fields))
            raise InputError(
                f"{file}: the column `{name}` holds structs of {fields}, without the `bytes` of the images"
            )
        kind = kind.field("bytes").type
    if not (_is_bytes(kind) or pa.types.is_null(kind) or isinstance(kind, pa.BaseExtensionType)):
        raise InputError(
            f"{file}: the column `{name}` must hold encoded bytes, a struct with `bytes`, or uint8 CHW tensors, not "
            f"{kind}"
        )


def _check_label(file: Path, schema: pa.Schema, name: str, is_id: bool) -> None:
    """Raises InputError for a column that can hold neither class indices nor names, or no ids."""
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(kind) or _is_text(kind)):
        wanted = "text or integers" if is_id else "integers or class names"
        raise InputError(f"{file}: the column `{name}` must hold {wanted}, not {kind}")


def _check_alike(schemas: Mapping[Path, pa.Schema], name: str) -> None:
    """Raises InputError, naming two files, where a column is of types that cannot be read as one, as text and integers.

    Integers of several sizes can.
    """
    first, *others = schemas
    field = schemas[first].field(name)
    for file in others:
        own = schemas[file].field(name)
        try:
            pa.unify_schemas([pa.schema([field]), pa.schema([own])], promote_options="permissive")
        except pa.ArrowException as problem:
            raise InputError(
                f"{file}: the column `{name}` holds {own.type}, and in {first} it holds {field.type}; write it as one "
                "type in all files"
            ) from problem


def _is_bytes(kind: pa.DataType) -> bool:
    is_view = pa.types.is_binary_view(kind)
    return bool(is_view or any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary)))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
