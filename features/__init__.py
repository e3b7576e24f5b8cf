"""Encoder -> embeddings -> inputs of the CTR model."""
