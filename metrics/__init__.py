"""Ranking metrics and their intervals: pure functions on NumPy arrays, used by every stage that validates."""
