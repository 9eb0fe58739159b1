"""Refinements: ways to make a surrogate from a source, of which alignment to a witness is one.

A refinement is a line of settings in `presets`, made of parts. A part is an entry in `parts` and a file here, named
after it, that holds one function or class of its name:

* inputs, such as `pgd`: `(at) -> images`, what is learnt from instead of the images.
* mixes, such as `cutmix`: `(images, ...) -> Mixed`.
* terms, such as `score_matching`: `(at) -> scalar`, which is added to the loss.
* updates, such as `sam`: `(gradients, parameters) -> values`, which leaves the gradient that the optimiser takes.
* keeps, such as `swa`: a class that gathers weights, and returns the networks that are kept.
"""

from align_core.refinements.presets import REFINEMENTS, Refinement

__all__ = ["REFINEMENTS", "Refinement"]
