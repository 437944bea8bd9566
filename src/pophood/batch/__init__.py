"""Batches: a file of requests, one a line, answered through one scheduler; a killed run goes on."""
