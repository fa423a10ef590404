"""The networks, and what prepares their inputs."""
