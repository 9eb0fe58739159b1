"""Ray, and what its workers hold.

This room knows how work is spread, and not what the work is: the stages hand it jobs. Where to begin:

* `cluster`: connects to Ray, and says what one worker takes and how many fit.
* `fine_tune`: one fine-tune as a job, and the loop around the step; `ray_train` runs it on one worker or several.
* `ray_data`: sends chunks through workers; `fill` joins finished chunks into tables, and begins again after faults.
* `images`, `networks`, `loading`: what a worker holds: open image sets, networks as data, networks in memory.
* `ray_internals`: the little that Ray offers under no public name.
"""
