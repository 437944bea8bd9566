"""A network namespace with loopback alone: what is started inside reaches this machine and nothing else."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.needs import linux

NEW_NETWORK = 0x40000000  # CLONE_NEWNET of unshare(2) and setns(2)
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP of netdevice(7)
ELSEWHERE = ("192.0.2.1", 80)  # RFC 5737: an address for documents, which nobody has


@contextmanager
def loopback_only() -> Iterator[None]:
    """Move this thread, and every process that it starts meanwhile, into such a namespace.

    Skips the test on other systems than Linux, and where making a namespace is refused.
    """
    linux()
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(NEW_NETWORK) != 0:
            reason = os.strerror(ctypes.get_errno())
            pytest.skip(f"this system refuses network namespaces: {reason} (root may make them)")
        try:
            raise_loopback()
            assert not reaches_outside()
            yield
        finally:
            assert libc.setns(before, NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


def raise_loopback() -> None:
    """Switch the interface `lo` on, as `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(any_socket, GET_FLAGS, request))
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", flags | UP))


def reaches_outside() -> bool:
    """Return True if there is a way to another machine; without one the system refuses at once."""
    try:
        with socket.create_connection(ELSEWHERE, timeout=2):
            return True
    except TimeoutError:
        return True
    except OSError:
        return False
