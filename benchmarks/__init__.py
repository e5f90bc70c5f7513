"""What the numbers in the README come from; each is one command."""
