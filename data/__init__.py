"""From files on disk to batches. Imports nothing of ours; knows neither MLflow nor Ray."""
