"""The audit: every problem of a data set by file, before any training."""
