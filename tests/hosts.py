"""Two hosts on this machine: network namespaces with a link between them that can be cut, as when a cable is pulled."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

ADDRESSES = ("198.18.0.1", "198.18.0.2")
"""Of the network for benchmarks, which no other one uses; nothing outside the namespaces sees them."""


def lacking() -> str:
    """What this machine lacks for two hosts; empty where nothing is lacking."""
    if os.geteuid() != 0:
        return "network namespaces are made as root, and this is not root"
    if shutil.which("ip") is None:
        return "no ip: apt-get install iproute2"
    made = subprocess.run(["ip", "netns", "add", f"semdedup-{os.getpid()}"], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    ip("netns", "delete", f"semdedup-{os.getpid()}")
    return ""


def ip(*arguments: str) -> None:
    """Call `ip`."""
    subprocess.run(["ip", *arguments], check=True)


@dataclass(frozen=True)
class Host:
    """One of two.

    Attributes:
        name: of the namespace.
        address: in the network of both.
    """

    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command begins with that runs there."""
        return ("ip", "netns", "exec", self.name)

    def set_link(self, state: str) -> None:
        """Pull the cable here ("down"), or plug it in again ("up")."""
        ip("-n", self.name, "link", "set", "link0", state)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts with a link between them, until the block ends."""
    hosts = [Host(f"semdedup-{os.getpid()}-{i}", address) for i, address in enumerate(ADDRESSES)]
    with contextlib.ExitStack() as made:
        for host in hosts:
            ip("netns", "add", host.name)
            made.callback(ip, "netns", "delete", host.name)
        one, other = hosts
        ip("-n", one.name, "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", other.name)
        for host in hosts:
            ip("-n", host.name, "address", "add", f"{host.address}/30", "dev", "link0")
            for link in ("lo", "link0"):
                ip("-n", host.name, "link", "set", link, "up")
        yield one, other
