"""Exports: writes models and adapters for other programs, and reads them back as a proof."""
