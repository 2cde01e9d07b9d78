"""sd_notify(3): telling systemd how a service is doing. Does nothing where $NOTIFY_SOCKET is not set."""

from __future__ import annotations

import os
import socket
import time


def notify(state: str) -> None:
    """Send one state, such as `READY=1`. Raises OSError when the socket that was named does not answer."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.connect("\0" + address[1:] if address.startswith("@") else address)
        connection.sendall(state.encode())


def reloading() -> None:
    """The configuration is read again, until the next `READY=1`; systemd wants the time (Type=notify-reload).
    Raises as `notify`."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
