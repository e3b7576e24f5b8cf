"""The built-in worlds: rendered or real pictures, simulated clicks."""
