"""The forms in which images are exported, each by the name of its flag."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipelines.export import npz_form, parquet_form, png_form, robustbench_form
from pipelines.export.exportable import Chunk, Exportable
from pipelines.storage.store import Store


@dataclass(frozen=True)
class Form:
    """A form of exported images.

    Attributes:
        write: writes the images to a path of a store.
        read: decodes what is there, in chunks as long as those of the images.
        suffixes: of the file that holds the images of one surrogate and attack; none where that is a folder.
        has_labels: whether it holds labels and ids; where it does not, the manifest does.
        is_begun: of a folder, whether all that is in it belongs to these images, so that `write` goes on with it.
    """

    write: Callable[[Exportable, Store, str], None]
    read: Callable[[Exportable, Store, str], Iterator[Chunk]]
    suffixes: tuple[str, ...] = ()
    has_labels: bool = True
    is_begun: Callable[[Exportable, Store, str], bool] | None = None


FORMS: Mapping[str, Form] = {
    "png": Form(png_form.write, png_form.read, is_begun=png_form.is_begun),
    "npz": Form(npz_form.write, npz_form.read, (".npz",)),
    "robustbench": Form(robustbench_form.write, robustbench_form.read, (".pt", ".pth"), has_labels=False),
    "parquet": Form(parquet_form.write, parquet_form.read, (".parquet",)),
}
