"""Measured costs: compute, size, latency, step time."""
