"""The pictures of README and docs, made from one real search: ``python -m benchmarks.screenshots`` (``make pictures``)."""
