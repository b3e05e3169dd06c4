"""Training, and the saved model: how it is written, verified and loaded."""
