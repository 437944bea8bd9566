"""The engine in a process of its own: its start, the pipe to it, and what happens when it ends by itself."""
