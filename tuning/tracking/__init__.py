"""The one writer to MLflow. Nothing else in a search talks to the tracking server."""
