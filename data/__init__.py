"""Image data sets, from files on disk to training batches. Does not import models, tuning, MLflow or Ray."""
