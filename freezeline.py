"""Freezeline's Python interface (WIP)."""

from tuning import __version__, shadowing_message

if message := shadowing_message():
    raise RuntimeError(message)
__all__ = ["__version__"]
