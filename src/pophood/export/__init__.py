"""Exports: writes models and adapters for other programs, and reads them back to prove that they are right."""
