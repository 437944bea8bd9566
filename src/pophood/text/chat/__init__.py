"""Chat templates: turn conversations into the text or ids that a model was trained on."""
