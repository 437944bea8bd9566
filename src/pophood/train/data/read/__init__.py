"""Files to records: what a file holds is judged by its content; bad records are reported by line."""
