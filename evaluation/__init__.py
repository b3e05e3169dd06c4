"""How good the saved model is on rows it has never seen."""
