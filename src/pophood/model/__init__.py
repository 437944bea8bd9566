"""A loaded model: its files (bundle), its forward pass (engine), and the object that users hold (lm)."""
