"""The Responses API without a memory: its fields become those of a chat, its answers items and events."""
