"""The guard of `doctor --prove-offline` notices every connection attempt, even if its error is suppressed."""

from __future__ import annotations

import sys

import pytest

from tests import processes

ATTEMPTS = {
    "socket.connect": "import socket; socket.socket().connect(('127.0.0.1', 9))",
    "socket.connect_ex": "import socket; socket.socket().connect_ex(('127.0.0.1', 9))",
    "socket.create_connection": "import socket; socket.create_connection(('127.0.0.1', 9), 0.1)",
    "socket.sendto": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "socket.bind": "import socket; socket.socket().bind(('127.0.0.1', 0))",
    "getaddrinfo": "import socket; socket.getaddrinfo('localhost', 80)",
    "gethostbyname": "import socket; socket.gethostbyname('localhost')",
    "urllib": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
    "http.client": "import http.client; http.client.HTTPConnection('127.0.0.1', 9).request('GET', '/')",
    "child process": "import subprocess; subprocess.run(['true'])",
    "shell": "import os; os.system('true')",
    "exec": "import os; os.execv('/bin/true', ['true'])",
}
HARNESS = """
import sys
from pophood.cli.commands.doctor import Guard
guard = Guard()
sys.addaudithook(guard)
try:
    {attempt}
except BaseException:
    pass
print(len(guard.attempts), guard.attempts)
"""


@pytest.mark.parametrize("name", ATTEMPTS)
def test_every_way_out_is_seen_and_refused(name: str) -> None:
    code = HARNESS.format(attempt=ATTEMPTS[name])
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) >= 1, done.stdout


def test_ordinary_work_is_not_an_attempt() -> None:
    work = "import numpy, json, mmap, threading, pathlib; open(__import__('os').devnull).close()"
    code = HARNESS.format(attempt=work)
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "0"
