"""Options that commands share, and where prompts come from."""
