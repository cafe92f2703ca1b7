"""Steps on a clip."""
