"""The output and the questions of single commands."""
