"""Sources of images: what ``data=...`` names, opened as a list of labelled files."""
