"""Data sources: folders, manifests, archives, S3 and the demo, opened as lists of labeled files."""
