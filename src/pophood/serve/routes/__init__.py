"""The routes, one file each: a request in, a response out. What they share is in `protocol`."""
