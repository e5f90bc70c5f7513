"""The live view of a terminal: a block below the log lines that shows the running trials and the budget."""
