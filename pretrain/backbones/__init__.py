"""Image backbones by name, and the weights they begin with."""
