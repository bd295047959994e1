"""Research code of orch: tasks, models and the training loop; trains on a laptop without the service."""
