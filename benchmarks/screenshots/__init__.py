"""The pictures of README and docs, made from one real search: ``python -m benchmarks.pictures`` (``make pictures``)."""
