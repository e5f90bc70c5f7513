"""From a recipe to a promoted version. Imports ``models`` and ``data``."""
