"""One module per view: numbers, tables and words, each computed by one function of a loaded model."""
