"""Experiments that ship with Witness, and the model factories that they name."""
