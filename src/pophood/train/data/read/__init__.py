"""Files to records: formats are detected from the content, and bad records are reported by line."""
