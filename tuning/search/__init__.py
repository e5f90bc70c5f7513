"""The search: Optuna proposes trials, Ray Tune runs them, a scheduler stops them, the trial store persists them."""
