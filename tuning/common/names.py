"""Names of tags, parameters and metrics, each written once."""

from __future__ import annotations

VARIANT = "variant"

# Tags of the parent run.
SEARCH_FOLDER_TAG = "search_folder"  # where the search keeps its state
