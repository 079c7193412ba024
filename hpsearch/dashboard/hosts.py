"""Under which names a server may be asked.

A browser says in each request which name it was given. A page of another site can have its own name
lead to this machine ("DNS rebinding"), and could then read all answers; but it cannot have the
browser say another name.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from collections.abc import Iterable

from hpsearch.errors import SearchError

_HOST = re.compile(
    r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[0-9a-z_](?:[0-9a-z._-]*[0-9a-z_])?)\.?)(?::\d{1,5})?",
    re.ASCII | re.IGNORECASE,
)
_LONGEST = 300

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hosts:
    """The names of a server.

    Attributes:
        names: in small letters; loopback's are always among them.
        any_address: an address in figures is one of this machine, whichever it is: nobody can have
            it lead elsewhere.
    """

    names: frozenset[str] = frozenset()
    any_address: bool = False

    def admit(self, header: str) -> bool:
        """Whether the Host header of a request names this server; any port will do."""
        name = host_name(header)
        if name is None:
            return False
        address = address_of(name)
        if address is not None and (address.is_loopback or self.any_address):
            return True
        return name == "localhost" or name in self.names


def host_name(header: str) -> str | None:
    """The name or the address in a Host header, in small letters; None where it is malformed."""
    found = _HOST.fullmatch(header) if len(header) <= _LONGEST else None
    if found is None:
        return None
    if found["address"] is not None:
        address = address_of(found["address"])
        return None if address is None else str(address)
    return found["name"].lower()


def address_of(text: str) -> Address | None:
    """An IP address; None where the text is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def hosts_of(address: Address, asked: str, allowed: Iterable[str]) -> Hosts:
    """The names of a server.

    Args:
        address: that it listens on.
        asked: as what that was asked for.
        allowed: more names, such as a proxy's.

    Raises:
        SearchError: one of those is none.
    """
    names = set()
    for text in allowed:
        name = host_name(_in_ascii(text))
        if name is None:
            raise SearchError(
                f"--allow-host takes the name of a host, such as models.example.org, not {text!r}"
            )
        names.add(name)
    # A machine's own name can be one of loopback's, too: Debian's /etc/hosts has it at 127.0.1.1.
    known = {asked}
    if not address.is_loopback:
        machine = {socket.gethostname(), socket.getfqdn()}
        known |= {str(address), *machine, *(f"{name.partition('.')[0]}.local" for name in machine)}
    names |= {name for name in map(host_name, map(_in_ascii, known)) if name is not None}
    return Hosts(names=frozenset(names), any_address=address.is_unspecified)


def _in_ascii(name: str) -> str:
    """As browsers send it: names with other letters are encoded."""
    name = name.strip()
    if ":" in name and address_of(name) is not None:
        return f"[{name}]"
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return name
