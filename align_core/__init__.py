"""The science of Witness in plain PyTorch: models, image sets, alignment, attacks and transfer statistics.

Everything here works by itself, on modules and tensors, without an experiment file. The package imports neither Ray nor
MLflow, nor `pipelines` or `tune_spaces`, which build on it. README.md beside this file shows how the parts are used;
good places to begin reading are `alignment.Alignment` and `attacks.loop.craft`.
"""
