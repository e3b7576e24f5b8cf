"""What looks wrong in a shop that can be read: the warnings of `data.validate`, each a small pure function with its thresholds."""
