"""Training a CTR model: loop, sharded tables, checkpoints, predictions."""
