"""Image backbones by name, and their initial weights."""
