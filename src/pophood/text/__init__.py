"""Tokenizers, decoding of token streams, and chat templates.

Nothing here opens a connection or knows about weights. Importing this package imports neither `tokenizers`
nor `jinja2`; both are imported when a file needs them.
"""
