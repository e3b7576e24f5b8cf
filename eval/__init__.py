"""Predictions -> how much pictures lift the CTR model, and how certain that is."""
