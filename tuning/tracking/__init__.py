"""MLflow tracking. The async writer is the only part of a search that calls the tracking server."""
