"""From cached pixels to augmented batches."""
