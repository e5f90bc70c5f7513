"""The search: Optuna proposes, Ray Tune runs, a trial scheduler stops, the ledger remembers."""
