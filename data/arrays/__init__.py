"""Arrays and tables, in memory or mapped from disk, and the arithmetic on them that every room of `data` needs."""
