"""A click-through-rate model over the shop's log, with or without an image feature."""
