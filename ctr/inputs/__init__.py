"""A shop and an image feature -> batches: vocabularies, encoded columns, length buckets, samplers."""
