"""From a recipe to a promoted model version; imports ``models`` and ``data``."""

__version__ = "0.5.0"
