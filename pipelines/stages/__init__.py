"""What has to be made for an experiment, and the making of it.

An experiment and its inputs become a `Blueprint`, which says for every network and every table what determines it and
whether it is there. The stages then make what is missing: networks (`align`), adversarial images (`craft`), predictions
and outcomes (`evaluate`). Each writes to the store and returns how much it made. Where to begin:

* `inspect`: looks at every image set and model once.
* `blueprint`: the whole experiment; `makings` and `cells` say what determines a network and a table, with `revisions`.
* `payload`: what workers are sent.
* `align`, `craft`, `evaluate`: the stages themselves; `speeds` records how fast they went, for `witness plan`.
"""
