"""What the workers count, and how Prometheus reads it."""
