"""Loaded data sets: image index, filtering, near-duplicates and split assignment."""
