"""From a recipe to a promoted model version; imports ``models`` and ``data``."""
