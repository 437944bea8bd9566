"""Records to token ids, with a mask that says which of them are learned."""
