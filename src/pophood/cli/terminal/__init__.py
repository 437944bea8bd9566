"""Terminal output: tables, bars, colours, pages of text."""
