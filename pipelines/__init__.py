"""The engine room of Witness: Ray Train, Ray Data, MLflow, figures and the command line, over `align_core`."""
