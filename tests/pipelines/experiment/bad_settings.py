"""The part of the table of bad input that is about attacks, alignment and compute, and numbers out of all bounds.

`test_bad_input.py` walks through it.
"""

from typing import Any

import pytest

INF, NAN = float("inf"), float("nan")
GONE = object()
"""Stands for a key that is removed from the experiment."""
VALIDATION = {"data.validation": {"kind": "npz", "path": "again.npz"}}


def bad(name: str, message: str | tuple[str, ...], changes: str | dict[str, Any] | None = None, *arguments: str) -> Any:
    """A case: what the message must contain, the changes (as text: the whole file), and arguments of the command."""
    return pytest.param((message,) if isinstance(message, str) else message, changes or {}, arguments, id=name)


SETTINGS = [
    # Reasons
    bad("no sample", "reasons.sample: Input should be greater than or equal to 1", {"reasons": {"sample": 0}}),
    bad("half an image", "reasons.sample: ", {"reasons": {"sample": 2.5}}),
    bad("reasons on", "reasons: must hold keys and values", {"reasons": True}),
    bad("unknown reason", "reasons.samples: unknown key; did you mean 'sample'?", {"reasons": {"samples": 20}}),
    bad("reasons of no attack", "reasons.attack: there is no attack 'pdg'; did you mean 'pgd'?",
        {"reasons": {"attack": "pdg"}}),
    # Attacks
    *(
        bad(f"eps {eps}", ("attacks.pgd: ", *message), {"attacks.pgd.eps": eps})
        for eps, message in {
            0: ("eps must lie between 1/255 and 1",),
            8: ("eps must lie between 1/255 and 1", "did you mean 8/255?"),
            "-1/255": ("eps must lie between 1/255 and 1",),
            "4/0": ("'4/0' is not a pixel fraction such as 4/255",),
            "four": ("'four' is not a pixel fraction",),
        }.items()
    ),
    bad("images made elsewhere, on the web", "attacks.mi.images: ftp://b/x.npz: images and weights are read from disks",
        {"attacks.mi": {"images": "ftp://b/x.npz", "eps": "4/255"}}),
    *(
        bad(f"a hash in {key}", f"{key}: s3://***@b/a#2: write # as %23", {key: "s3://k:s@b/a#2", "tracking": "http://t:1"})
        for key in ("output", "data.test.path", "models.near.weights")
    ),
    *(
        bad(f"one slash in {key}", f"{key}: did you mean s3://***@b/a?", {key: "s3:/k:s@b/a"})
        for key in ("output", "data.test.path", "models.near.weights")
    ),
    bad("factories in a store", "factories: s3://b/code: this is read from a disk alone", {"factories": "s3://b/code"}),
    bad("training images of no variable", "data.train.path: $NOPE/x.npz: the environment variable NOPE is not set",
        {"data.train.path": "$NOPE/x.npz"}),
    bad("test images on the web", "data.test.path: http://x/y.npz: images and weights are read from disks and from",
        {"data.test.path": "http://x/y.npz"}),
    bad("step 0", "attacks.mi: step must lie above 0", {"attacks.mi.step": 0}),
    bad("unknown method", "attacks.pgd: there is no method 'pdg'; did you mean 'pgd' or 'pgn'? There are: fgsm",
        {"attacks.pgd.method": "pdg"}),
    bad("norm l1", "attacks.pgd: norm must be one of linf, l2, not l1", {"attacks.pgd.norm": "l1"}),
    *(
        bad(f"contradiction of {name}", f"attacks.one: {message}", {"attacks.one": {"eps": "8/255", **settings}})
        for name, settings, message in [
            (
                "norm", {"method": "gra", "norm": "l2", "eps": 0.5},
                "step_decay: 0.94, which gra has, shrinks steps by the signs of pixels, which the l2 ball has not; "
                "set step_decay: 1 or norm: linf",
            ),
            ("momentum", {"method": "ni", "momentum": 0}, "nesterov: true, which ni has, looks ahead along the moment"),
            ("views", {"method": "mi", "combine": "logits"}, "combine: logits is about the copies that views make, an"),
            ("towards", {"method": "mi", "objective": "po_trip"}, "objective: po_trip needs a class to lead to, and t"),
            ("budget", {"method": "bsr", "budget": 100, "steps": 9}, "a budget of 100 makes 5 steps, and steps is 9"),
        ]
    ),
    *(
        bad(f"idle {key}", f"attacks.pgd: {key}: {shown} has no effect without", {f"attacks.pgd.{key}": value})
        for key, value, shown in [
            ("warm_stride", 3, "3.0"), ("step_decay_by", "gradient", "gradient"), ("normalized", False, "false"),
        ]
    ),
    bad("no attack", "attacks: Dictionary should have at least 1 item", {"attacks": {}}),
    # Alignment
    bad("batch over workers", "align: batch_size 128 must be a multiple of workers 3", {"align.workers": 3}),
    bad("of a variant", "variants.v.align: batch_size 128 must be a multiple of", {"variants.v.align.workers": 3}),
    bad("unknown key of a variant", "variants.v.align.temp: unknown key; did you", {"variants.v.align.temp": 4}),
    bad("two of a variant", ("v.align.a: unknown", "v.align.b: unknown"), {"variants.v.align": {"a": 1, "b": 1}}),
    bad("nested in a variant", "variants.v.align.optimizer.name: must ", {"variants.v.align.optimizer.name": "adam"}),
    bad("number for a loss", "align.loss: must be text, a list or keys and values, not the", {"align.loss": 3}),
    bad("list for a part", "align.keep: must be text or keys and values, not a list", {"align.keep": ["swa"]}),
    bad("truth as weight", "align.over_witnesses.0: must be a number, not true", {"align.over_witnesses": [True]}),
    bad("unknown loss", "align: there is no alignment loss 'kll'; did you mean 'kl'? There are: kl,",
        {"align.loss": "kll"}),
    bad("loss twice", "align: loss must name at least one loss, and each of them once", {"align.loss": ["kl", "kl"]}),
    bad("setting of a loss", "loss rkd has no setting 'angel'; did", {"align.loss": [{"name": "rkd", "angel": 1}]}),
    bad("unknown part", "align: keep: there is no part 'emma'; did you mean 'ema'? There are: last,",
        {"align.keep": "emma"}),
    bad("unknown term", "align: terms: there is no part 'saa'", {"align.terms": ["saa"]}),
    bad("setting of a part", "rho of update sam must be from", {"align.update": {"name": "sam", "rho": -1}}),
    bad("smoothed labels", "align: label_smoothing has no effect, because label", {"align.label_smoothing": 0.1}),
    bad("no label smoothing", "align: label_smoothing must be 0 or more and below", {"align.label_smoothing": 1}),
    bad(
        "choice of a batch", "align: over_witnesses: max chooses image by image, and rkd has one value for a batch",
        {"align.over_witnesses": "max", "align.loss": ["kl", "rkd"]},
    ),
    bad("unknown reduction", "align: over_witnesses must be one of mean, max, min", {"align.over_witnesses": "sum"}),
    bad("weights of witnesses", "align.over_witnesses: has 2 weights, and there", {"align.over_witnesses": [1, 2]}),
    bad("mixed labels", "align: mix: nce compares images by their labels", {"align.mix": "mixup", "align.loss": "nce"}),
    bad("warm-up", "align.optimizer: warmup must be 0 epochs or more", {"align.optimizer.warmup": -1}),
    bad("long warm-up", "align: optimizer.warmup: 40 epochs of warm-up, of 4 in all, leave the learning rate",
        {"align.epochs": 4, "align.optimizer.warmup": 40}),
    bad("long warm-up of a variant", "variants.v.align: optimizer.warmup: 2 epochs of warm-up, of 2 in all, leave",
        {"align.epochs": 3, "align.optimizer.warmup": 2, "variants.v.align": {"epochs": 2}}),
    bad("long warm-up of steps", "align.optimizer.warmup: 40 epochs of warm-up, of ",
        {"align.epochs": 50, "align.limit_steps": 3, "align.optimizer.warmup": 40}),
    bad("long warm-up of a budget", "variants.v.align.optimizer.warmup: 2 epochs of warm-up, of 2 in all, leave",
        {"align.epochs": 3, "align.batch_size": 4, "align.optimizer.warmup": 2,
         "variants.v": {"refine": "sam", "budget": "aligned"}}),
    bad("long warm-up of a model", "models.m.train: warmup: 7 epochs of warm-up, of 6 in all, leave", {
        "models.m": {"timm": "test_vit", "train": {"warmup": 7, "epochs": 6}},
    }),
    bad("layer decay", "align.optimizer: layer_decay must be above 0", {"align.optimizer.layer_decay": 0}),
    # Surrogates
    bad("unknown refinement", "variants.v.refine: there is no refinement 'lvg'; did you", {"variants.v.refine": "lvg"}),
    bad(
        "witness of a rival", "v.witnesses: what it is made by needs no",
        {"variants.v": {"refine": "lgv", "witnesses": ["seer"]}},
    ),
    *(
        bad(
            f"idle {key} of a variant", f"variants.v.align.{key}: has no effect, because nothing is aligned where `we",
            {"variants.v": {"refine": "sam", "align": {key: value}}},
        )
        for key, value in {
            "loss": {"name": "pkt", "weight": 3000}, "temperature": 8, "over_witnesses": "max", "teacher": "source",
        }.items()
    ),
    bad(
        "idle key of a variant on labels", "variants.v.align.temperature: has no effect",
        {"variants.v.align": {"weight": 0, "label_weight": 1, "temperature": 8}},
    ),
    bad(
        "idle epochs of a variant", "variants.v.align.epochs: has no effect, because `limit_steps` decides how long it",
        {"align.limit_steps": 3, "variants.v.align": {"epochs": 8}},
    ),
    bad(
        "idle key of the alignment", "align.temperature: has no effect, because nothing is aligned where `weight` is 0",
        {"align.weight": 0, "align.label_weight": 1, "align.temperature": 8, "variants": {"v": {"refine": "sam"}}},
    ),
    bad("ensemble of one", "variants.v.ensemble: must name at least two", {"variants.v.ensemble": ["near"]}),
    bad("ensemble of none", "variants.v.ensemble: must name at least two", {"variants.v.ensemble": []}),
    bad("ensemble twice", "v.ensemble: names one member twice", {"variants.v.ensemble": ["near", "seer", "near"]}),
    bad(
        "unknown member", "v.ensemble: there is no model or surrogate 'seers'",
        {"variants.v.ensemble": ["near", "seers"]},
    ),
    bad("target in an ensemble", "targets: twin is named in variants.v.ens", {"variants.v.ensemble": ["near", "twin"]}),
    bad(
        "made and not", "variants.v.ensemble: nothing is aligned here, so leave out `refine`",
        {"variants.v": {"ensemble": ["near", "seer"], "refine": "lgv"}},
    ),
    bad(
        "two kinds", "variants.v: a model that is there, and an ensemble",
        {"variants.v": {"model": "other", "ensemble": ["near", "seer"]}},
    ),
    bad(
        "combined alone", "v.combine: a model that is there is one",
        {"variants.v": {"model": "other", "combine": "loss"}},
    ),
    bad(
        "unknown combination", "variants.v.combine: must be 'logits', 'loss' or 'cycle'",
        {"variants.v.combine": "max"},
    ),
    bad("budget of nothing", "variants.v.budget: there is no surrogate 'alined'", {"variants.v.budget": "alined"}),
    bad("budget of a source", "variants.v.budget: source is used as it is", {"variants.v.budget": "source"}),
    bad(
        "two lengths", "variants.v: `budget` decides how long it is trained, and so does align.epochs",
        {"variants.v": {"budget": "aligned", "align": {"epochs": 3}}},
    ),
    bad(
        "budgets in a circle", "variants.v: it needs itself: v needs w needs v",
        {"variants.v": {"budget": "w"}, "variants.w": {"budget": "v"}},
    ),
    bad("early stop without images", "align.early_stop: needs data.validation", {"align.early_stop": {}}),
    bad(
        "early stop without targets", "align.early_stop: by gain, it needs validation_targets",
        {"align.early_stop": {"by": "gain", "attack": "pgd"}, **VALIDATION},
    ),
    bad(
        "early stop by an unknown attack", "align.early_stop.attack: there is no attack 'pdg'; did you mean 'pgd'",
        {"align.early_stop": {"by": "gain", "attack": "pdg"}, "validation_targets": ["other"], **VALIDATION},
    ),
    bad(
        "early stop by a targeted attack", "align.early_stop.attack: pgd leads towards a class",
        {
            "align.early_stop": {"by": "gain", "attack": "pgd"}, "attacks.pgd.towards": "next",
            "validation_targets": ["other"], **VALIDATION,
        },
    ),
    bad(
        "early stop of a variant", "variants.v.align.early_stop: needs data.validation",
        {"variants.v.align": {"early_stop": {}}},
    ),
    bad(
        "early stop of several networks", "`keep` leaves several; leave it out (early_stop: null), or keep one network",
        {"variants.v": {"refine": "lgv", "align": {"early_stop": {"by": "gain", "attack": "pgd"}}}},
    ),
    bad(
        "early stop without a witness", "early_stop: it is by agreement with the witnesses",
        {"align.early_stop": {}, "variants.v": {"refine": "sam"}, **VALIDATION},
    ),
    bad(
        "budget that is not known", "variants.v.budget: aligned stops early, so that its budget is not known",
        {"align.early_stop": {}, "variants.v": {"budget": "aligned"}, **VALIDATION},
    ),
    bad(
        "early stop that is inherited", "v.align.early_stop: by agreement, nothing is crafted; leave `attack` out (a v",
        {
            "align.early_stop": {"by": "gain", "attack": "pgd"}, "validation_targets": ["other"], **VALIDATION,
            "variants.v.align.early_stop": {"by": "agreement"},
        },
    ),
    bad("aligned to itself", "variants.v: it needs itself: v needs v", {"variants.v.witnesses": ["v"]}),
    bad(
        "several networks registered", "register: align.keep leaves several networks",
        {"register": "mine", "align.keep": "collect"},
    ),
    bad(
        "witness of several networks", "variants.v.witnesses: w is 4 networks, and a witness is one",
        {"variants.v": {"witnesses": ["w"]}, "variants.w": {"refine": "mba", "align": {"keep": {"samples": 4}}}},
    ),
    bad(
        "witness that is an ensemble", "variants.v.witnesses: both is near and other as it is",
        {"variants.v": {"witnesses": ["both"]}, "variants.both": {"ensemble": ["near", "other"]}},
    ),
    bad(
        "witness that is a model under another name", "variants.v.witnesses: old is other as it is",
        {"variants.v": {"witnesses": ["old"]}, "variants.old": {"model": "other"}},
    ),
    bad(
        "ensemble of one network under two names", "variants.v.ensemble: near is in it twice",
        {"variants.v": {"ensemble": ["source", "near"]}},
    ),
    bad(
        "ensemble of one network within another", "variants.v.ensemble: near is in it twice",
        {"variants.v": {"ensemble": ["both", "near"]}, "variants.both": {"ensemble": ["near", "other"]}},
    ),
    bad("unknown contrast", "contrasts: there is no surrogate 'alined'", {"contrasts": [["alined", "source"]]}),
    bad("contrast with itself", "contrasts: aligned is compared with itself", {"contrasts": [["aligned", "aligned"]]}),
    bad("contrast of three", "contrasts.0: must be a pair of names of surrogates, such as [aligned, source], not 3",
        {"contrasts": [["a", "b", "c"]]}),
    *(
        bad(f"contrast twice, {again}", "contrasts: aligned and source are compared twice; name each pair once",
            {"contrasts": [["aligned", "source"], again]})
        for again in (["aligned", "source"], ["source", "aligned"])
    ),
    bad("corruption of colours", "corruptions: saturate leaves grey images as they are, and these are grey; leave it",
        {"corruptions": {"saturate": [3]}}),
    bad("number for a budget", "v.budget: must be the name of a surrogate, of whose passes this one takes as many, ",
        {"variants.v": {"budget": 6000}}),
    bad("seed beside seeds", "and both are given; to repeat with each of `seeds`, leave `seed` out",
        {"seeds": [1, 2], "seed": 0}),
    # Numbers that are not finite, or that can only be a slip
    *(
        bad(f"{key} {value}", f"{key}: must be a finite number of at most 3e38", {key: value})
        for key, value in [
            ("align.optimizer.lr", INF), ("align.clip_grad_norm", INF), ("align.weight", NAN),
            ("align.temperature", 1e200), ("attacks.mi.momentum", NAN), ("attacks.mi.warm_stride", INF),
            ("variants.v.align.temperature", INF), ("compute.patience", INF), ("compute.resources.a", NAN),
        ]
    ),
    bad("eps nan", "'nan/255' is not a pixel fraction", {"attacks.mi.eps": "nan/255"}),
    bad("eps .inf", "inf is not a pixel fraction", {"attacks.mi.eps": INF}),
    bad("argument nan", "models.near: args must be plain", {"models.near.args": {"width": NAN}}),
    bad("--set of nan", "align.temperature: must be a finite", None, "--set", "align.temperature=.nan"),
    bad("endless attack", "attacks.mi: steps must be from 1 to 100,000", {"attacks.mi.steps": 10**9}),
    bad("1e20 steps", "attacks.mi.steps: must be a whole number below 2^63", {"attacks.mi.steps": 1e20}),
    bad("copies", "copies of view scale must be from", {"attacks.mi.views": [{"name": "scale", "copies": 9999}]}),
    bad("points", "count of rule line must be from 1", {"attacks.mi.samples": {"name": "line", "count": 99999}}),
    bad("kernel", "attacks.mi: kernel must be at most 17 for images of 8 pixels", {"attacks.mi.kernel": 1001}),
    bad("endless alignment", "align: epochs must be at most 100,000", {"align.epochs": 10**12}),
    bad("endless training", "models.m.train: epochs must be at most 100,000", {
        "models.m": {"timm": "test_vit", "train": {"epochs": 10**12}},
    }),
    bad("huge batch", "align: batch_size must be at most 1,000,000", {"align.batch_size": 10**12}),
    bad("huge align.workers", "align: workers must be at most 10,000", {"align.workers": 10**8}),
    bad("huge image", "data.image_size: Input should be less than or equal to 4096", {"data.image_size": 10**9}),
    bad("huge input", "models.near: input_size must be at most 4096 pixels", {"models.near.input_size": 10**9}),
    bad("huge number of classes", "data.classes: must be at least 2 and at most 1,000,000", {"data.classes": 10**12}),
    bad("huge chunk", "compute.chunk: Input should be less than or equal to 100000", {"compute.chunk": 10**12}),
    bad("huge number of workers", "compute.workers: Input should be less than", {"compute.workers": 10**12}),
    bad("huge number of threads", "compute.threads: Input should be less than", {"compute.threads": 10**6}),
    bad("cache elsewhere", "compute.cache: 'kept' is not an absolute path", {"compute.cache": "kept"}),
    bad("endless patience", "compute.patience: Input should be less than", {"compute.patience": 1e30}),
    bad("a whole resource and a half", "compute.resources: a must be a share from", {"compute.resources": {"a": 1.5}}),
    bad("nearly no resource", "compute.resources: a must be a share from 0.0001", {"compute.resources": {"a": 1e-9}}),
    bad("a resource of Ray's own", "compute.resources: CPU is set by other keys", {"compute.resources": {"CPU": 1}}),
]  # fmt: skip
