"""Terminal output of the commands: renderers of events, the live view and tables."""
