"""Tuning from the studio: files of training data, and runs, each a `pophood tune` in a process of its own."""
