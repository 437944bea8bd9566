"""HTTP GET from a model hub, strict about redirects.

A hub answers a file's address with a redirect to another host, so redirects are followed, at most 8. Each
must stay http(s), must not change from https to http, and must not lead to a more private address than the
hub's own: a public hub cannot send this program to the user's router, and a mirror on a private network
cannot send it to this machine. The user's login (HF_TOKEN, or the token that `hf auth login` saved) is sent
to the hub's own origin only, never along a redirect. There are no cookies, and no header describes this
machine.
"""

from __future__ import annotations

import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urljoin

from pophood.errors import BadInput, PophoodError
from pophood.hub.cache import hf_home, path_in
from pophood.hub.net.connect import (
    Connection,
    Reach,
    Unreachable,
    bad_certificate,
    bad_proxy,
    connect,
    literal_reach,
    port_of,
    split_address,
    words_of,
)

HUB = "https://huggingface.co"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 8
FIRST_PAUSE = 0.5  # seconds
MOST_TOKEN_BYTES = 10_000

T = TypeVar("T")
Headers = Mapping[str, str]


@dataclass(slots=True)
class Answer:
    """An open response; header names are in lower case."""

    url: str
    status: int
    headers: Headers
    from_hub: bool  # whether it came from the hub's own origin
    hops: list[Headers]  # headers of the hub's own answers, including redirects
    body: http.client.HTTPResponse

    def hub_header(self, name: str) -> str | None:
        """Return a header of the hub's own answers; the target of a redirect cannot speak for the hub."""
        return next((hop[name] for hop in reversed(self.hops) if name in hop), None)

    def read(self, n: int) -> bytes:
        """Read between 1 and `n` bytes; b"" at the end, or if the connection was closed early."""
        try:
            return self.body.read1(n)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{self.url}: the connection broke ({words_of(error)})") from None

    def read_all(self, limit: int) -> bytes:
        """Read the whole body; PophoodError if it is longer than `limit` bytes."""
        pieces, size = [], 0
        while piece := self.read(1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise PophoodError(f"{self.url}: the answer is longer than {limit:,} bytes: refused")
        return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class Login:
    """A token, with its origin for messages."""

    token: str = field(repr=False)
    origin: str  # "HF_TOKEN", or "the login saved in ~/.cache/huggingface/token"
    saved: bool = False  # read from a file, not asked for explicitly


@dataclass(frozen=True, slots=True)
class Web:
    """One hub, with the login, time-out and number of attempts to use."""

    endpoint: str
    login: Login | None = None
    timeout: float = 30.0  # seconds without a byte
    attempts: int = 5  # in a row without progress

    @classmethod
    def from_environment(cls) -> Web:
        """Return the hub of HF_ENDPOINT (by default huggingface.co), with the user's login if any."""
        endpoint = (os.environ.get("HF_ENDPOINT", "").strip() or HUB).rstrip("/")
        parts = split_address(endpoint)
        if parts.query or parts.fragment:
            raise BadInput(f"HF_ENDPOINT is {endpoint!r}, wanted an address such as {HUB}")
        return cls(endpoint, login_for(endpoint, HUB))

    @contextmanager
    def get(self, path: str, headers: Headers | None = None, *, method: str = "GET") -> Iterator[Answer]:
        """Open an address below the endpoint, following checked redirects; any other status is returned.

        Raises Unreachable for temporary failures, NotFound for a bad certificate, PophoodError for a bad
        redirect.
        """
        url = f"{self.endpoint}{path}"
        hops: list[Headers] = []
        hub_reach: Reach | None = None
        for _ in range(MAX_REDIRECTS + 1):
            connection = connect(split_address(url), hub_reach, self.timeout)
            hub_reach = connection.reach if hub_reach is None else hub_reach
            with closing(connection.http):
                answer = self._send(connection, method, url, headers or {}, hops)
                with closing(answer.body):
                    encoding = answer.headers.get("content-encoding", "identity")
                    if encoding != "identity":
                        raise PophoodError(f"{url}: encoded as {encoding!r}, wanted plain bytes: refused")
                    if answer.status not in REDIRECTS:
                        yield answer
                        return
                url = _redirect(url, answer.headers.get("location", ""))
        raise PophoodError(f"{url}: the hub redirects in circles ({MAX_REDIRECTS} times): refused")

    def _send(
        self,
        connection: Connection,
        method: str,
        url: str,
        headers: Headers,
        hops: list[Headers],
    ) -> Answer:
        parts, from_hub = split_address(url), same_origin(self.endpoint, url)
        wanted = {"User-Agent": "pophood", "Accept-Encoding": "identity", "Connection": "close"}
        wanted |= {**headers, **connection.headers}
        if from_hub and self.login is not None:
            if parts.scheme != "https" and literal_reach(parts.hostname or "") is not Reach.LOOPBACK:
                raise BadInput(
                    f"{self.endpoint}: {self.login.origin} would be sent unencrypted: use https, or unset it"
                )
            wanted["Authorization"] = f"Bearer {self.login.token}"
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        try:
            connection.http.request(
                method, url.partition("#")[0] if connection.absolute else target, headers=wanted
            )
            response = connection.http.getresponse()
        except ssl.SSLCertVerificationError as error:  # behind a proxy, TLS starts only here
            raise bad_certificate(parts.hostname, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            where = f"{parts.scheme}://{parts.netloc}"
            if connection.proxy is not None:
                raise bad_proxy(connection.proxy, parts, words_of(error)) from None
            raise Unreachable(f"{where}: no answer ({words_of(error)})") from None
        if connection.absolute and connection.proxy is not None and response.status in (407, 502, 503, 504):
            reason = f"it answers {response.status} {response.reason}"
            response.close()
            raise bad_proxy(connection.proxy, parts, reason)
        answer_headers = {name.lower(): value for name, value in response.getheaders()}
        if from_hub:
            hops.append(answer_headers)
        return Answer(url, response.status, answer_headers, from_hub, hops, response)


def _redirect(url: str, location: str) -> str:
    """Return the address that a redirect leads to, checked as far as possible before its name is resolved."""
    target = urljoin(url, quote(location, safe="%/:=&?~#+!$,;'@()*[]"))
    try:
        parts = split_address(target)
    except BadInput:
        shown = "".join(char for char in location if char.isprintable())[:100]
        raise PophoodError(
            f"{url}: the hub redirects to {shown!r}, wanted an http(s) address: refused"
        ) from None
    if split_address(url).scheme == "https" and parts.scheme != "https":
        raise PophoodError(f"{url}: the hub redirects to {target[:100]!r}, which is not encrypted: refused")
    return target


def with_attempts(web: Web, attempt: Callable[[], T]) -> T:
    """Call `attempt` until it succeeds, at most `web.attempts` times, with growing pauses."""
    for number in range(web.attempts):
        try:
            return attempt()
        except Unreachable:
            if number + 1 == web.attempts:
                raise
            pause(number)
    raise AssertionError("Web.attempts is at least 1")


def pause(number: int) -> None:
    """Wait before attempt `number` + 2: 0.5 s, doubling, at most 8 s."""
    time.sleep(min(8.0, FIRST_PAUSE * 2**number))


# The login --------------------------------------------------------------------------------------------


def login_for(endpoint: str, hub: str) -> Login | None:
    """Return the login for the hub at an endpoint; `hub` is the address that a saved login belongs to.

    HF_TOKEN is sent to the hub that HF_ENDPOINT names, since the user set both. The saved login belongs to
    huggingface.co: for any other hub it is not even read. The file it is in, and the switch that turns it
    off, follow huggingface_hub (constants.py, utils/_auth.py).
    """
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = os.environ.get(variable, "").strip()
        if token:
            return Login(token, variable)
    switched_off = os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").strip().upper()
    if switched_off in ("1", "ON", "YES", "TRUE") or not same_origin(endpoint, hub):
        return None
    path = token_path()
    try:
        if not path.is_file() or path.stat().st_size > MOST_TOKEN_BYTES:
            return None
        token = "".join(path.read_text("ascii").split())
    except (OSError, UnicodeDecodeError):  # not readable, or not a token
        return None
    return Login(token, f"the login saved in {path}", saved=True) if token else None


def token_path() -> Path:
    """Return the file where `hf auth login` saves the token: HF_TOKEN_PATH, HF_HOME/token, or the default."""
    return path_in("HF_TOKEN_PATH") or hf_home() / "token"


def same_origin(one: str, other: str) -> bool:
    """Return whether two addresses have the same scheme, host and port."""
    ours, theirs = split_address(one), split_address(other)
    return (ours.scheme, ours.hostname, port_of(ours)) == (theirs.scheme, theirs.hostname, port_of(theirs))
