"""The live view of a terminal: a block at its bottom that shows how a search is doing."""
