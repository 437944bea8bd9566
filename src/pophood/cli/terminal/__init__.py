"""What a terminal shows: tables, bars, colours, pages of text. Decides nothing."""
