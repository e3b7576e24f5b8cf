"""A trained CTR model applied: export, scorer, bulk prediction."""
