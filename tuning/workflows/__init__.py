"""Workflows: the steps of each command, from validated options to the result."""
