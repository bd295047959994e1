"""Where webhooks may go: to public addresses, and to those that the setting names.

A webhook's URL comes from whoever submits a sweep, and the coordinator sits where that person may not reach: beside
databases, dashboards without passwords, and a cloud's metadata service. What counts is the address that is connected
to, not the name: a name can mean one address when it is looked at and another when it is used (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.errors import BadInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.ip_network("64:ff9b::/96")
INTERNAL = tuple(
    ipaddress.ip_network(each)
    for each in (
        "168.63.129.16",  # Azure's own services, which every virtual machine there reaches
        "::/96",  # IPv4-compatible
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b:1::/48",  # a network's own NAT64, which may lead to any IPv4 address
        "fec0::/10",  # site-local
    )
)
"""What `ipaddress` takes for public, and is not."""


class Refused(Exception):
    """A webhook may not go there, now or ever."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """hosts: names and addresses that may be called whatever they are; networks: addresses likewise."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str]) -> Allowed:
        """From hosts ("chat.lab"), addresses and networks ("10.0.0.0/8"). Raises BadInput."""
        hosts, networks = set(), []
        for word in words:
            try:
                networks.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                if "/" in word:
                    raise BadInput(f"ORCH_WEBHOOK_ALLOW: {word!r} is no host, address or network.") from None
                hosts.add(word.lower())
        return cls(frozenset(hosts), tuple(networks))

    def permits(self, host: str, address: Address) -> bool:
        """Whether a webhook to `host` may connect to `address`."""
        if host.lower() in self.hosts or any(address in network for network in self.networks):
            return True
        return all(_is_public(each) for each in (address, *_embedded(address)))


def resolve(host: str, port: int, allowed: Allowed, look_up: Callable[..., list[tuple]] = socket.getaddrinfo) -> str:
    """The address to connect to, all of the name's addresses having been looked at.

    Raises:
        Refused: one of them is not to be called. OSError: the name has none.
    """
    found = look_up(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found]
    for address in addresses:
        if not allowed.permits(host, address):
            raise Refused(
                f"webhooks do not go to {host} ({address}), which is no public address; "
                "an operator allows it with ORCH_WEBHOOK_ALLOW."
            )
    return str(addresses[0])


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in network for network in INTERNAL)


def _embedded(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
