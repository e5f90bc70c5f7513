"""The packaged model: export, MLflow model and pyfunc."""
