"""A data set: index of images, filtering, near-duplicates, splits."""
