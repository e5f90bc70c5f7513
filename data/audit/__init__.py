"""Audit of a data set: all problems, listed by file, before any training."""
