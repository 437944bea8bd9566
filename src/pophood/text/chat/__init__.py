"""Chat templates: conversations in, the text or the ids that a model was trained on out."""
