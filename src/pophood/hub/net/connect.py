"""Opens connections to checked addresses, with or without TLS, direct or by proxy. No other file does.

The IP address that was checked is the one that is connected to, so that a second name lookup cannot lead
elsewhere. Behind a proxy only numeric addresses can be checked, because the proxy resolves names.
"""

from __future__ import annotations

import http.client
import importlib.util
import ipaddress
import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from enum import IntEnum
from urllib.parse import SplitResult, unquote, urlsplit

from pophood.errors import BadInput, NotFound, PophoodError
from pophood.hub.net import Outside

CONNECT_SECONDS = 10.0


class Unreachable(NotFound):
    """The hub did not answer, or the connection broke; another attempt may help."""


class ProxyFailed(Unreachable):
    """The proxy that the user set up failed; the hub was not reached."""


class Reach(IntEnum):
    """The privacy of an address. A redirect must not lead to a more private address than the hub's own."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NOWHERE = 3  # link-local (cloud metadata), multicast, unspecified: never allowed


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection, and how requests on it must be written."""

    http: http.client.HTTPConnection
    reach: Reach
    absolute: bool = False  # the request must name the whole URL, as a proxy for plain HTTP needs
    headers: dict[str, str] = field(default_factory=dict)  # further headers for that proxy
    proxy: str | None = None  # "host:port"


def reach_of(address: str) -> Reach:
    """Return how private an IP address is. Example: `reach_of("192.168.1.1") is Reach.PRIVATE`."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    if ip.is_loopback:
        return Reach.LOOPBACK
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return Reach.NOWHERE
    return Reach.PUBLIC if ip.is_global else Reach.PRIVATE


def literal_reach(host: str) -> Reach:
    """Return the reach of a host that is written as an IP address; names other than localhost are public."""
    try:
        return reach_of(host)
    except ValueError:
        return Reach.LOOPBACK if host == "localhost" or host.endswith(".localhost") else Reach.PUBLIC


def split_address(url: str) -> SplitResult:
    """Split an http(s) address that has a host and no password; BadInput for any other."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and port_of(parts)
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise BadInput(
            f"{url[:100]!r} is not the address of a hub: wanted one such as https://huggingface.co"
        )
    return parts


def port_of(parts: SplitResult) -> int:
    """Return the port of an address, by default that of the scheme."""
    return parts.port or (443 if parts.scheme == "https" else 80)


def connect(parts: SplitResult, limit: Reach | None, timeout: float) -> Connection:
    """Connect to an address that is no more private than `limit` (None: any address, as the user chose it).

    Raises Unreachable for temporary failures, NotFound for a bad certificate, PophoodError for a refused
    address.
    """
    host = parts.hostname or ""
    proxy = _proxy_for(parts)
    if proxy is not None:
        reach = literal_reach(host)
        if limit is not None and reach > limit:
            raise _refused_redirect(parts, reach)
        return _through_proxy(proxy, parts, reach, timeout)
    sock, reach = _dial(parts, limit, timeout)
    if parts.scheme == "http":
        plain = http.client.HTTPConnection(host, port_of(parts), timeout=timeout)
        plain.sock, plain.auto_open = sock, 0
        return Connection(plain, reach)
    secure = http.client.HTTPSConnection(host, port_of(parts), timeout=timeout)
    try:
        secure.sock, secure.auto_open = _tls().wrap_socket(sock, server_hostname=host), 0
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise bad_certificate(host, error) from None
    except (OSError, ValueError) as error:
        sock.close()
        raise Unreachable(f"{host}: no encrypted connection ({words_of(error)})") from None
    return Connection(secure, reach)


def _dial(parts: SplitResult, limit: Reach | None, timeout: float) -> tuple[socket.socket, Reach]:
    host = parts.hostname or ""
    try:
        addresses = socket.getaddrinfo(host, port_of(parts), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host}: there is no such host, or no network ({words_of(error)})") from None
    refused, failure = Reach.PUBLIC, "no address"
    for family, kind, protocol, _, address in addresses:
        reach = reach_of(str(address[0]))
        if limit is not None and (reach > limit or reach is Reach.NOWHERE):
            refused = reach
            continue
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(min(timeout, CONNECT_SECONDS))
            sock.connect(address)
            sock.settimeout(timeout)
        except OSError as error:
            sock.close()
            failure = words_of(error)
            continue
        if reach is not Reach.LOOPBACK:
            Outside.count(host)
        return sock, reach
    if refused is not Reach.PUBLIC:
        raise _refused_redirect(parts, refused)
    raise Unreachable(f"{host}: not reached ({failure})")


def bad_certificate(host: str | None, error: ssl.SSLCertVerificationError) -> NotFound:
    """Return the error for a host whose certificate is not valid."""
    return NotFound(
        f"{host}: its certificate is not valid ({error.verify_message}): behind a company's proxy, set "
        "SSL_CERT_FILE to a file with its certificates"
    )


def _refused_redirect(parts: SplitResult, reach: Reach) -> PophoodError:
    place = {Reach.PRIVATE: "on a private network", Reach.LOOPBACK: "this machine itself"}
    where = place.get(reach, "a local address")
    return PophoodError(f"the hub redirects to {parts.scheme}://{parts.netloc}, which is {where}: refused")


def _tls() -> ssl.SSLContext:
    """Use the system's certificates, or certifi's (if installed) where Python has none (macOS installers)."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    has_certificates = paths.cafile or paths.capath or context.get_ca_certs()
    if not has_certificates and importlib.util.find_spec("certifi") is not None:
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _proxy_for(parts: SplitResult) -> SplitResult | None:
    """Return the proxy that the user set up for an address (HTTPS_PROXY, NO_PROXY, the system's settings)."""
    from urllib.request import getproxies, proxy_bypass

    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if address.scheme != "http" or not address.hostname:
        raise BadInput(
            f"the proxy {address.scheme}://{address.hostname} cannot be used: wanted an http:// proxy"
        )
    return address


def _through_proxy(proxy: SplitResult, parts: SplitResult, reach: Reach, timeout: float) -> Connection:
    headers = {}
    if proxy.username is not None:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    host, port = proxy.hostname or "", proxy.port or 80
    name = f"{host}:{port}"
    if parts.scheme == "http":
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=_tls())
        connection.set_tunnel(parts.hostname or "", port_of(parts), headers)
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise bad_certificate(parts.hostname, error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        raise bad_proxy(name, parts, words_of(error)) from None
    if reach is not Reach.LOOPBACK:
        Outside.count(parts.hostname)
    connection.auto_open = 0
    absolute = parts.scheme == "http"
    return Connection(connection, reach, absolute, headers if absolute else {}, name)


def bad_proxy(proxy: str, parts: SplitResult, reason: str) -> ProxyFailed:
    """Return the error for a proxy that does not reach a host; the host itself may be fine."""
    variable = f"{parts.scheme.upper()}_PROXY"
    return ProxyFailed(
        f"the proxy {proxy} does not reach {parts.hostname} ({reason}): correct or unset {variable} "
        "(or the system's proxy settings), or add the host to NO_PROXY"
    )


def words_of(error: Exception) -> str:
    """Return the text of a network error, printable and short."""
    return "".join(char for char in str(error) or type(error).__name__ if char.isprintable())[:160]
