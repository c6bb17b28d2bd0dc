"""One file per change of schema, oldest first by its number."""
