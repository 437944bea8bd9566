"""A loaded model: files opened (bundle), computed (engine), and the object that a user holds (LM)."""
