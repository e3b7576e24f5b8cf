"""What forms learn from embeddings and the log: clusters, codes, quantiles of cosines."""
