"""The commands: modules that are imported when one of their commands is called."""
