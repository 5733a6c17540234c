"""Commands and their bytes."""
