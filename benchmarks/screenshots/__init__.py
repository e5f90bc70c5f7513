"""Screenshots of README and docs from one real search: ``python -m benchmarks.screenshots`` (``make screenshots``)."""
