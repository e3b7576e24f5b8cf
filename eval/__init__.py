"""Predictions -> the truth about the lift."""
