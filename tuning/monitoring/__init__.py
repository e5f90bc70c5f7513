"""Monitoring of a packaged model in use: records of its answers, compared with its test images."""
