"""Pretrained networks by name, and their weights."""
