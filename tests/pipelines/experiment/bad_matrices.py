"""Bad input about a matrix of sources and targets: a part of the table that `test_bad_input.py` walks through.

The models of the experiment are near, other, seer, twin, cousin and stranger; its witness is seer, its control witness.
"""

from typing import Any

from bad_settings import GONE, bad

NO_WITNESS = {"witnesses": GONE, "controls": GONE}


def refused(name: str, message: str | tuple[str, ...], changes: dict[str, Any] | None = None) -> Any:
    """A case of a matrix of near, twin and stranger, with some keys changed."""
    matrix = {"source": GONE, "targets": GONE, "matrix": ["near", "twin", "stranger"]}
    return bad(f"matrix: {name}", message, matrix | (changes or {}))


MATRICES = [
    refused("and a source", "matrix: every model that it names is a source, and a target", {"source": "other"}),
    refused("and targets", "leave out `targets`", {"targets": ["cousin"]}),
    refused("and both", "leave out `source` and `targets`", {"source": "other", "targets": ["cousin"]}),
    refused("no list", "matrix: must be a list, in square brackets, not the text 'near'", {"matrix": "near"}),
    refused("of one", "matrix: must name at least two models", {"matrix": ["near"]}),
    refused("of none", "source: this key is required", {"matrix": []}),
    refused("of one twice", "matrix: near is named twice", {"matrix": ["near", "near"]}),
    refused("no model", "matrix: there is no model 'nearr'; did you mean 'near'?", {"matrix": ["nearr", "twin"]}),
    refused("defended", ("matrix: jpeg is defended", "Name the model within, cousin"), {
        "models.jpeg": {"wrap": "jpeg", "model": "cousin"}, "matrix": ["near", "jpeg"],
    }),
    refused("with a witness", ("matrix: twin is named in witnesses too", "cannot see"), {"witnesses": ["twin"]}),
    refused("with a witness of the same weights", "matrix: twin has the same weights as copy; a target must be", {
        "models.copy": {"factory": "hand_made_networks:linear", "args": {"width": 2}, "weights": "twin.safetensors"},
        "witnesses": ["copy"],
    }),
    refused("two of the same weights", "has the same weights as", {
        "models.copy": {"factory": "hand_made_networks:linear", "args": {"width": 2}, "weights": "twin.safetensors"},
        "matrix": ["near", "twin", "copy"],
    }),
    refused("and a validation target", "validation_targets: twin is named in matrix too", {
        "validation_targets": ["twin"],
    }),
    refused("registered", "register: a matrix has an aligned model of every source", {"register": "mine"}),
    refused("of no witness, controlled", "controls: ensemble is made of witnesses, and this matrix has none", {
        "witnesses": GONE, "controls": ["label_only", "ensemble"],
    }),
    refused("least likely class", "attacks.pgd.towards: least_likely asks the source", {
        "attacks.pgd.towards": "least_likely",
    }),
    refused("variant of no source", "variants.v.source: must be given, because a matrix has no single source", {
        "variants.v": {"align": {"temperature": 9}},
    }),
    refused("variant of no witness", "variants.v.witnesses: must be given, because this matrix has none", {
        **NO_WITNESS, "variants.v": {"source": "near"},
    }),
    refused("variant of all", "variants.v: it is made from every model of the matrix", {
        "variants.v": {"source": "near", "ensemble": ["twin", "stranger"]},
    }),
    refused("variant with a name that is taken", "variants.Aligned-near: aligned-near is a surrogate of the matrix", {
        "variants.Aligned-near": {"source": "near"},
    }),
    refused("model with a name that is taken", "models.aligned-near: aligned-near is a surrogate of the matrix", {
        "models.aligned-near": {"factory": "hand_made_networks:linear", "weights": "near.safetensors"},
    }),
    refused("contrast without a common target", "contrasts: v and source-stranger have no target in common", {
        "variants.v": {"source": "near", "ensemble": ["near", "twin"]}, "contrasts": [["v", "source-stranger"]],
    }),
    refused("contrast with what is not there", "contrasts: there is no surrogate 'aligned'; did you mean 'aligned-", {
        "contrasts": [["source-near", "aligned"]],
    }),
    refused("group of another model", "groups.g: 'other' is not among the targets", {"groups": {"g": ["other"]}}),
    bad("no witness", "witnesses: must name at least one model", {"witnesses": []}),
]  # fmt: skip
