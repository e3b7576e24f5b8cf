"""What methods are made of: losses, attention, text towers, self-distillation."""
