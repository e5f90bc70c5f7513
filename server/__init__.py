"""Shared tracking server: artifact bucket, generated passwords and backup."""
