"""The network: the only package that opens a connection to another machine."""
