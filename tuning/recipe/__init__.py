"""The requested settings: options, presets, and what ``auto`` stands for."""
