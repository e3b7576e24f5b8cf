"""The infrastructure shared by all stages: settings, folders, checkpoints, devices, progress, keyed randomness."""
