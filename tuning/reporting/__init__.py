"""The HTML report of a search or an evaluation, and its charts."""
