"""Server and clients where there is no network but loopback: all works, and nothing tries to leave."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import ROOT
from tests.needs import linux, tool
from tests.tiny import tiny_folder

# Every call that can name another address; what follows needs a connection that was made by one of them.
CALLS = "connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(r"sa_family=(AF_\w+)(?:, sin6?_port=htons\((\d+)\))?(.*)")
LOOPBACK = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "(?:::1|::ffff:127\.[\d.]+)"')
DNS = "53"

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from openai import OpenAI
from tests.processes import run
from tests.serve.command import command
from tests.serve.wire import request
with command(Path({model!r}), home=Path({home!r})) as running:
    body = {{"prompt": "the cat", "max_tokens": 3}}
    print(request(running.port, "/v1/completions", key=running.key, body=body).status)
    client = OpenAI(base_url=running.facts["base_url"], api_key=running.key)
    talk = [{{"role": "user", "content": "Hi"}}]
    pieces = client.chat.completions.create(model="tiny", messages=talk, max_tokens=3, stream=True)
    print(len(list(pieces)) > 1, client.models.list().data[0].id)
    url = running.facts["base_url"] + "/models"
    key = "Authorization: Bearer " + running.key
    run(["curl", "-sf", "-o", "/dev/null", "-H", key, url], check=True)
"""


def attempts_to_leave(calls: str) -> list[str]:
    """Return the lines of strace that name an address outside this machine, or a name server.

    >>> attempts_to_leave('connect(3, {sa_family=AF_INET, sin_port=htons(80), inet_addr("127.0.0.1")}')
    []
    """
    found = []
    for line in calls.splitlines():
        match = ADDRESS.search(line)
        if match is None or match[1] not in ("AF_INET", "AF_INET6"):
            continue
        if match[2] == DNS or not LOOPBACK.search(match[3]):
            found.append(line)
    return found


def test_attempts_are_seen() -> None:
    outside = [
        'connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = -1',
        'connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0',
        'sendto(3, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(9), sin6_flowinfo=htonl(0), '
        'inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = -1',
    ]
    inside = [
        'connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = -1',
        "connect(3, {sa_family=AF_INET6, sin6_port=htons(9), sin6_flowinfo=htonl(0), "
        'inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = 0',
        "sendto(3, [{nlmsg_len=20}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 20",
    ]
    assert attempts_to_leave("\n".join([*outside, *inside])) == outside


def test_it_works_where_there_is_no_network_but_loopback(tmp_path: Path) -> None:
    linux()
    unshare, ip = tool("unshare", "util-linux"), tool("ip", "iproute2")
    strace = tool("strace")
    tool("curl")
    allowed = processes.run([unshare, "-rn", ip, "link", "set", "lo", "up"], capture_output=True)
    if allowed.returncode:
        pytest.skip("needs tool: network namespaces, which this user may not make")
    model = tiny_folder(tmp_path / "tiny", "qwen2")
    script = SCRIPT.format(root=str(ROOT), model=str(model), home=str(tmp_path))
    inside = (
        f'"{ip}" link set lo up && exec "{strace}" -f -qq -e trace={CALLS} -o "{tmp_path}/calls" "$0" -c "$1"'
    )
    done = processes.run(
        [unshare, "-rn", "sh", "-c", inside, sys.executable, script], capture_output=True, text=True
    )
    assert done.stdout.split() == ["200", "True", "tiny"], done.stderr
    calls = (tmp_path / "calls").read_text(encoding="utf-8", errors="replace")
    assert len(LOOPBACK.findall(calls)) >= 3, "each client has connected"
    assert attempts_to_leave(calls) == []
    print(f"{calls.count('connect(')} connections, {len(LOOPBACK.findall(calls))} on loopback, 0 others")
