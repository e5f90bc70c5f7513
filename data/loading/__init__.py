"""Loading: from cached pixels to augmented training batches."""
