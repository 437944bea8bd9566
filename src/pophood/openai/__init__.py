"""Requests and answers in OpenAI's shapes as plain data: fields, settings, log-probabilities, errors.

No HTTP and no engine: the server and the command for batches stand on it.
"""
