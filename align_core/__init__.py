"""The science of Witness in plain PyTorch: models, image sets, alignment, attacks, transfer statistics.

Usable by itself. Imports neither Ray nor MLflow nor the floors above (`pipelines`, `tune_spaces`).
"""
