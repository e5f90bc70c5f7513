"""Networks, training, evaluation and packaging of classifiers. Imports ``data`` only; does not use Ray."""
