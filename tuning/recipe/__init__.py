"""The requested settings: options, presets, and the values of ``auto``."""
