"""Conversations on disk: the database, what is kept in it, and the ways out of it and into it."""
