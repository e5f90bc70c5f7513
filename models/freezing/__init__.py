"""Blocks of a network, the freeze line, and truncation."""
