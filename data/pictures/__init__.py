"""Picture files -> pixels: one file read safely, a decoded store, a reader of files."""
