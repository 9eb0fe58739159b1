"""Artifacts of MLflow that stay with their database when the output folder is moved or copied.

MLflow keeps absolute paths of artifacts in its database. So without this, a folder that was moved would have lost them,
and a copy would read and write those of the original.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines.storage.store import Say

ARTIFACTS = "mlartifacts"
"""The folder beside a database that has a folder of artifacts per experiment."""

_PATIENCE = 2.0  # seconds that a database which another process is writing is waited for
# Every column of MLflow's tables that holds the absolute address of artifacts.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def database_file(uri: str) -> Path | None:
    """The file of an SQLite database by its URI; None for any other store."""
    if not uri.startswith("sqlite:///") or "?" in uri:
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute()


def follow_moved_artifacts(uri: str, say: Say) -> None:
    """Lets an SQLite database that was moved or copied with its folder of artifacts refer to those beside it.

    That is done for every experiment whose folder of artifacts was beside the database and has one there now. What lies
    anywhere else stays as it is, and so does the original of a copy. A database that cannot be written is left alone,
    and `say` is given a line about it.
    """
    file = database_file(uri)
    if file is None or not file.exists():
        return
    try:
        with closing(sqlite3.connect(file, timeout=_PATIENCE)) as database:
            moved = _moved(database, file.parent)
            if not moved:
                return
            with database:
                for old, new in moved:
                    for table, column in _ADDRESSES:
                        _replace(database, table, column, old, new)
    except sqlite3.Error as problem:
        say(f"warning: {file} was moved, and still refers to artifacts at its old place ({problem}); let it be written")
        return
    say(f"{file} was moved or copied: it refers to the artifacts beside it now")


def _moved(database: sqlite3.Connection, folder: Path) -> list[tuple[str, str]]:
    """The addresses of artifacts that are beside the database and that it has under another path: (old, new)."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return []
    found = []
    for (old,) in database.execute("SELECT artifact_location FROM experiments"):
        parts = urlsplit(old or "")
        was = Path(unquote(parts.path))
        now = folder / ARTIFACTS / was.name
        if parts.scheme == "file" and was.parent.name == ARTIFACTS and was != now and now.is_dir():
            found.append((old, now.as_uri()))
    return found


def _replace(database: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    """Replaces the start of addresses, where it is the whole of `old`."""
    if not database.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)).fetchone():
        return  # the database of a version of MLflow that does not have it
    database.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )
