"""What every stage needs to be a run: settings, folders, checkpoints, devices, progress, keyed randomness."""
