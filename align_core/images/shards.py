"""Files of one data set as Hugging Face cuts it, `train-00000-of-00005.parquet`: what is missing, or is too much."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

SEVERAL_SPLITS = "files of several splits"
"""How the note on them begins."""
_SHARD = re.compile(r"(.+)-\d+-of-(\d+)\.parquet", re.ASCII)


def notes_on_shards(files: Iterable[Path]) -> list[str]:
    """A sentence for each split of which files are missing, and one where files of several splits are one set."""
    found = Counter(match.groups() for file in files if (match := _SHARD.fullmatch(file.name)))
    notes = [
        f"{there} of the {int(total):,} files {split}-*-of-{total}.parquet are there: the others' images are missing"
        for (split, total), there in sorted(found.items())
        if there < int(total)
    ]
    splits = sorted({split for split, _ in found})
    if len(splits) > 1:
        notes.append(
            f"{SEVERAL_SPLITS} ({', '.join(splits)}) are used as one image set; give a file, or a folder, of one"
        )
    return notes
