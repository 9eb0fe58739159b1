"""The doors out: adversarial images for other tools, as PNG, npz, a torch tensor, Parquet, or a torch `Dataset`.

What flows in are finished tables of adversarial images; what flows out are files in the forms that other tools read.
Every image is decoded again from what was written, and compared with the stored one.

Where to begin:
* `command.py`: `witness export`; `export_images` checks everything, and writes one target after the other.
* `crafted_images.py`: the images of one surrogate and attack, chunk by chunk, with ids, labels and classes to lead to.
* `forms.py`: the forms that there are, a file each: `png_form`, `npz_form`, `robustbench_form`, `parquet_form`. A new
  one is a file with the two functions `write` and `read`, and an entry there.
* `place.py`: where the files go: a folder or a file, on a disk or in an object store; `file_names.py`: their names.
* `dataset.py`: `AdversarialImages`, a torch `Dataset`.
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.export.command import Exported as Exported
    from pipelines.export.command import export_images as export_images
    from pipelines.export.crafted_images import CraftedImages as CraftedImages
    from pipelines.export.dataset import AdversarialImages as AdversarialImages

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "command": ("Exported", "export_images"),
        "crafted_images": ("CraftedImages",),
        "dataset": ("AdversarialImages",),
    },
)
