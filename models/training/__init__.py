"""Training of one classifier."""
