"""Finished tables that a test damages, and what `witness verify` finds then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hand_made import HandMade

from pipelines.run.request import Request
from pipelines.run.verification import Verification
from pipelines.run.verify import verify_experiment


def results(made: HandMade) -> Path:
    return made.output / "by-hand"


def table(made: HandMade, folder: str) -> Path:
    (file,) = (results(made) / folder).glob("*.parquet")
    return file


def verified(made: HandMade, **options: Any) -> Verification:
    return verify_experiment(Request(made.file, quiet=True), **options)


def findings(made: HandMade) -> str:
    return "\n".join(verified(made).findings)


def rewrite(file: Path, column: str, change: Callable[[np.ndarray], Any], **metadata: Any) -> None:
    """Changes one column of a finished table, and leaves its row groups and metadata as they were."""
    source = pq.ParquetFile(file)
    groups = [source.read_row_group(index) for index in range(source.num_row_groups)]
    whole = pa.concat_tables(groups)
    if column:
        index = whole.schema.get_field_index(column)
        whole = whole.set_column(index, column, pa.array(change(whole[column].to_numpy().copy())))
    written(file, whole, [len(group) for group in groups], source.schema_arrow.metadata)


def written(file: Path, whole: pa.Table, sizes: list[int], metadata: dict[bytes, bytes]) -> None:
    with pq.ParquetWriter(file, whole.schema.with_metadata(metadata)) as writer:
        start = 0
        for size in sizes:
            writer.write_table(whole.slice(start, size), row_group_size=max(1, size))
            start += size


def described(file: Path, change: Callable[[dict[str, Any]], Any], key: str = "witness.table") -> None:
    """Changes what a table records about itself."""
    source = pq.ParquetFile(file)
    metadata = dict(source.schema_arrow.metadata)
    metadata[key.encode()] = json.dumps(change(json.loads(metadata[key.encode()]))).encode()
    written(file, source.read(), [3, 3, 3, 3], metadata)
