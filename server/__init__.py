"""The tracking server that a team shares: as plain processes, its bucket, its passwords, its backup."""
