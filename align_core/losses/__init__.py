"""Alignment losses, which measure how far a source is from a witness: in its logits, its features or its feature maps.

A new loss is a file in this folder with a function in it, both named after the loss, and an entry in `known.LOSSES`.
A function takes what the source and the witness make of the same images (`Seen`) and its settings, and returns a value
for each image, float32 [B], or one for the whole batch. No gradient flows into the witness. Names and settings can be
read without importing torch.
"""

from align_core.losses.known import LOSSES, Loss, compares, read_losses

__all__ = ["LOSSES", "Loss", "compares", "read_losses"]
