"""The page / in which people try the model."""
