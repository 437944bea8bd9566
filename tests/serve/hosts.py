"""Values of the Host header that must be refused, and those that are this machine. (small: two lists)"""

from __future__ import annotations

REFUSED_HOSTS = [
    *(
        "evil.com",
        "evil.com:80",
        "evil.com:PORT",
        "EVIL.COM",
        "localhost.evil.com",
        "localhost.evil.com:PORT",
    ),
    *(
        "evil.com.localhost",
        "127.0.0.1.evil.com",
        "127.0.0.1.nip.io",
        "127.0.0.1.nip.io:PORT",
        "localtest.me",
    ),
    *("0.0.0.0", "0.0.0.0:PORT", "[::]", "[::]:PORT", "192.168.1.1", "10.0.0.1:PORT", "169.254.169.254"),
    *(
        "localhost.",
        "localhost.:PORT",
        "127.0.0.1.",
        ".localhost",
        "localhost:",
        "localhost:abc",
        "localhost:-1",
    ),
    *("127.1", "127.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1:PORT:80", "127.0.0.01"),
    *("::1", "[::1", "::1]", "[::1]x", "[127.0.0.1]x", "[fe80::1]", "[2001:db8::1]:PORT"),
    *("localhost/", "localhost?", "localhost#", "user@localhost", "localhost@evil.com", "evil.com#localhost"),
    *(
        "localhost evil.com",
        "localhost,evil.com",
        "localhost\\evil.com",
        "my-laptop.local.evil.com",
        "local host",
    ),
    *("http://localhost", "//localhost", "*", "\xad127.0.0.1", "loc\xe4lhost", "a" * 5000),
]
GOOD_HOSTS = [
    *("127.0.0.1", "127.0.0.1:PORT", "127.0.0.1:1", "127.0.0.2", "localhost", "localhost:PORT", "LocalHost"),
    *("[::1]", "[::1]:PORT", "my-laptop.local", "My-Laptop.local:PORT"),
]
