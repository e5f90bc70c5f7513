"""Shared tracking server: native processes, artifact bucket, generated passwords and backup."""
