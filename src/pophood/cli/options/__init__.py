"""Options that commands share, and the reading of prompts."""
