"""What every request passes: its id, its limits, and the way to its answer."""
