"""The CTR model: embedding tables, attention over histories, the MLP."""
