"""The network: the only package that opens a connection to another machine."""


class Outside:
    """Counts the connections to other machines that this process has opened, or let pip open."""

    opened = 0
