"""Image sets of four kinds (`npz`, `folder`, `parquet`, `digits`), read as 8-bit images.

An image set lists the ids and labels of its images without decoding them, and reads any image by its id. Nothing here
imports torch, so that processes which only decode images start fast. Where to begin:

* `config`: `ImageSetConfig`, the settings, and which images they select.
* `image_set`: what every kind can do; `kinds` opens a set. `npz`, `folder`, `parquet`, `digits`: the kinds.
* `decoding`: from an encoded picture to 8-bit pixels; `fit`: from a picture of any size to the square that is attacked.
* `manifest`: reads every image of a set once and records what is found.
"""

from align_core.images.config import ImageSetConfig, selected
from align_core.images.fit import Fit
from align_core.images.image_set import ImageSet, chunked, read_images
from align_core.images.kinds import open_image_set

__all__ = ["Fit", "ImageSet", "ImageSetConfig", "chunked", "open_image_set", "read_images", "selected"]
