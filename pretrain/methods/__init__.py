"""The encoders that can be trained here: one file per method."""
