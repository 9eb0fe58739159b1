"""Experiments that ship with Witness, as YAML files, and the factories of the models that they name.

`demo.yaml` is what `witness demo` runs; its networks are in `digit_models.py`. The CIFAR-10 experiments need the images
and weights that their first lines describe, and `cifar_models.py`.
"""
