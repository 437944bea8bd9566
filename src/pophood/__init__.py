"""pophood: pop the hood of a language model on your own laptop: run it, look inside, tune it."""
