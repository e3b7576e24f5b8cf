"""Readers of public data formats."""
