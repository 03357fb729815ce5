"""What the limits count for an address: of IPv4 all of it, of IPv6 the part that a client can't change."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from flask import request

# The networks that count besides a client's /64, and how many times its limits they have. See rate_limits.py.
WIDER = {56: 4, 48: 16}

UNKNOWN = "unknown"  # for a text that is not an address

_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052


def client_address(prefix: int = 64) -> str:
    """Return the client's address as the limits count it, or the wider network with ``prefix`` bits; see ``network``.

    It comes from ``remote_addr`` alone, which trusts as many proxies as ``TRUSTED_PROXY_HOPS`` says.
    """
    return network(request.remote_addr or "", prefix)


@lru_cache(4096)  # addresses: each request asks several times
def network(address: str, prefix: int = 64) -> str:
    """Return the network of ``address`` with ``prefix`` bits, or the address itself if it is IPv4.

    IPv4 has no wider networks here: with another prefix than 64, the result is empty.
    """
    # Some proxies add the port: 192.0.2.1:4711 and [2001:db8::1]:4711.
    address = re.sub(r"^\[(.*)\](:\d+)?$|^([\d.]+):\d+$", r"\1\3", address)
    try:
        parsed = ip_address(address)
    except ValueError:
        # With 64 it is never empty: Flask-Limiter would not count such a client at all.
        return UNKNOWN if prefix == 64 else ""
    if isinstance(parsed, IPv6Address):
        parsed = _embedded(parsed) or parsed
    if isinstance(parsed, IPv4Address):
        return str(parsed) if prefix == 64 else ""
    rest = 128 - prefix
    return f"{IPv6Address(int(parsed) >> rest << rest)}/{prefix}"


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address in an IPv6 address.

    With 6to4 (RFC 3056), one IPv4 address owns a /48; with NAT64 and Teredo (RFC 4380), strangers share a /64.
    """
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
