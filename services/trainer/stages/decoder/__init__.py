"""The stages of models that generate."""
