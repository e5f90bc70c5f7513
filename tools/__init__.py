"""Generators of files that are derived from the code."""
