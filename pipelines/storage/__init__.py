"""Where results are kept, on a disk or in an object store, such that every file that exists is complete.

What flows in are bytes, JSON-able values and Arrow tables under paths relative to an experiment's output folder, and
the same flows out. Every other room reads and writes results through this one; it needs none of them.

Where to begin:
* `store.py`: `Store` writes files atomically, lists them, and holds the lock that keeps two runs apart.
  `fingerprint_of` is the hash that ties a file to the settings that made it.
* `chunked_table.py`: `ChunkedTable`, a table that workers fill chunk by chunk. Crafting and evaluation resume by it.
  `flat.py`: the form of images in the files of its chunks.
* `joint_table.py`: `JointTable`, several tables over the same rows that are made together, in one file per chunk.
* `differences.py`: what differs between the inputs of two results, in words.
* `sealed.py`: JSON files with a checksum, for figures that nothing else could confirm.
* `csv_table.py`: `to_csv` and `from_csv`, for the tables that people read.
* `object_store.py` and `lease.py`: what differs in an object store (opening, uploads, moves; a lease for a lock).
  `s3_requests.py`: what S3 does on request that pyarrow does not ask for. `ahead.py`: reading before its turn.
* `far.py` and `hub.py`: image sets and weights in object stores, which are fetched to the disk of each node.
* `cache.py`: the folder on that disk in which copies are kept.
* `writable.py`: whether files can be written in a folder.
* `credentials.py`: `without_credentials` makes a URI fit to be shown or stored, `hide_credentials` a text about it.
* `versions.py`: the versions of the software that made a result.

>>> store = Store("/data/runs", "my-resnets")           # or Store("s3://bucket/runs", "my-resnets")
>>> store.write_json("notes/first.json", {"seed": 0})   # /data/runs/my-resnets/notes/first.json
>>> store.listing("notes")
{'notes': ['first.json']}
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.storage.chunked_table import ChunkedTable as ChunkedTable
    from pipelines.storage.credentials import hide_credentials as hide_credentials
    from pipelines.storage.credentials import without_credentials as without_credentials
    from pipelines.storage.csv_table import from_csv as from_csv
    from pipelines.storage.csv_table import to_csv as to_csv
    from pipelines.storage.store import Store as Store
    from pipelines.storage.store import fingerprint_of as fingerprint_of

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "chunked_table": ("ChunkedTable",),
        "credentials": (
            "hide_credentials",
            "without_credentials",
        ),
        "csv_table": (
            "from_csv",
            "to_csv",
        ),
        "store": (
            "Store",
            "fingerprint_of",
        ),
    },
)
