"""The HTTP API that serves the saved model."""
