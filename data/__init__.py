"""A shop folder on disk and in memory: format and checks, event log, histories, pictures, split, built-in worlds."""
