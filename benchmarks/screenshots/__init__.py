"""Screenshots for the README and the docs, from one real search: ``make screenshots``."""
