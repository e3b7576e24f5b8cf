"""Pictures and clicks -> an image encoder: one file per method, one loop."""
