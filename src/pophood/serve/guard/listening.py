"""The address that the server listens at: checked, and opened before the model is loaded."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from dataclasses import dataclass

from pophood.errors import BadInput, PophoodError

TRIES = 20  # ports from the one that was asked for
BACKLOG = 256  # connections that wait while the model loads


@dataclass(frozen=True, slots=True)
class Listening:
    """An open socket. `taken` is the port that was asked for, if another program has it."""

    socket: socket.socket
    host: str
    port: int
    taken: int | None = None

    @property
    def loopback(self) -> bool:
        """True if only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """The address for clients on this machine, without a path: "http://127.0.0.1:8321"."""
        address = ipaddress.ip_address(self.host)
        if address.is_unspecified:
            address = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
        name = f"[{address}]" if address.version == 6 else str(address)
        return f"http://{name}:{self.port}"


def numeric(host: str) -> str:
    """Return an IP address; "localhost" is 127.0.0.1. Raises BadInput for other names: none is looked up."""
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host.lower() == "localhost" else host))
    except ValueError:
        raise BadInput(f"--host {host!r}: wanted an address such as 127.0.0.1, or localhost") from None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    return ipaddress.ip_address(host).is_loopback


def listen(host: str, port: int) -> Listening:
    """Listen at `port`, or at the next one that is free; at port 0 the system chooses.

    Connections are accepted later, when the model is there. Raises BadInput for an address that this machine
    does not have, PophoodError if every port is taken.
    """
    last = min(port + TRIES, 65536) if port else 1
    for candidate in range(port, last):
        try:
            opened = _open(host, candidate)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                raise BadInput(f"--host {host}: this machine has no such address") from None
            if error.errno == errno.EACCES:
                raise BadInput(f"--port {candidate}: not for this user; choose one above 1023") from None
            raise PophoodError(f"cannot listen at {host}, port {candidate}: {error.strerror}") from None
        return Listening(opened, host, opened.getsockname()[1], port if candidate != port else None)
    raise PophoodError(f"the ports {port} to {last - 1} are all taken: choose another one with --port")


def _open(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on what is accepted. Without it the second packet of
    # an answer waits for the client's late acknowledgement of the first, 40 ms on Linux.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there the option would let two programs share the port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise
    return opened
