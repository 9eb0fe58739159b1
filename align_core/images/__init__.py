"""Image sets of four kinds (`npz`, `folder`, `parquet`, `digits`), read as 8-bit images.

An image set lists the ids and labels of its images without decoding them, and reads any image by its id. Nothing here
imports torch, so that processes which only decode images start fast. Where to begin:

* `config`: `ImageSetConfig`, the settings; `selection`: which images they select.
* `image_set`: what every kind can do; `kinds` opens a set. `npz`, `folder`, `parquet`, `digits`: the kinds.
* `label_file`: the forms in which files list the labels of a folder; `label_names`: what their numbers stand for;
  `csv_table`: what both read.
* `parquet_columns`: which columns of Parquet files hold what; `shards`: which files are missing, by their names.
* `decoding`: from an encoded picture to 8-bit pixels; `fit`: to the square that is attacked and evaluated.
* `labels`: class names or indices, as a set lists them; `classes`: one list of classes for all sets of an experiment.
* `inspection`: reads every image of a set once; `manifest`: makes of it, and of the other sets', what is used.
* `duplicates`: images that occur twice; `notes`: what is said about a set on every run.
"""

from align_core.images.config import ImageSetConfig
from align_core.images.fit import Fit
from align_core.images.image_set import ImageSet, chunked, read_images
from align_core.images.kinds import open_image_set
from align_core.images.selection import selected

__all__ = ["Fit", "ImageSet", "ImageSetConfig", "chunked", "open_image_set", "read_images", "selected"]
