"""The doors out: images for other tools, as PNG, npz, a torch tensor, Parquet, or a torch `Dataset`.

What flows in are finished tables of adversarial images, or the test images before any attack; what flows out are files
in the forms that other tools read. Every image is decoded again from what was written, and compared with what it was.

Where to begin:
* `command.py`: `witness export`; it looks at every destination, and writes one after the other.
* `exportable.py`: what can be exported, chunk by chunk, with ids, labels and classes to lead to: `crafted_images.py`,
  the images of one surrogate and attack; `clean_images.py`, the test images.
* `forms.py`: the forms that there are, a file each: `png_form`, `npz_form`, `robustbench_form`, `parquet_form`. A new
  one is a file with the two functions `write` and `read`, and an entry there.
* `destination.py`: one set of images in one form, with its manifest: what is there, the writing, and the check.
* `place.py`: where the files go: a folder or a file, on a disk or in an object store; `file_names.py`: their names.
* `dataset.py`: `AdversarialImages` and `CleanTestImages`, each a torch `Dataset`.
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.export.clean_images import CleanImages as CleanImages
    from pipelines.export.command import Exported as Exported
    from pipelines.export.command import export_clean as export_clean
    from pipelines.export.command import export_images as export_images
    from pipelines.export.crafted_images import CraftedImages as CraftedImages
    from pipelines.export.dataset import AdversarialImages as AdversarialImages
    from pipelines.export.dataset import CleanTestImages as CleanTestImages

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "clean_images": ("CleanImages",),
        "command": ("Exported", "export_clean", "export_images"),
        "crafted_images": ("CraftedImages",),
        "dataset": ("AdversarialImages", "CleanTestImages"),
    },
)
