"""MLflow's model registry: candidates, the promotion gate, aliases and champion history."""
