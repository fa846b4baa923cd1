"""Tells systemd that the service serves, where it is one of `Type=notify` (sd_notify(3))."""

from __future__ import annotations

import os
import socket

#: Where systemd listens. Taken out of the environment at the start: gunicorn would otherwise say that it is ready
#: as soon as its arbiter stands, long before anything is served.
_VARIABLE = "NOTIFY_SOCKET"


def take_socket() -> str | None:
    """The address to tell, which nobody else finds in the environment any more; None where nobody asks."""
    return os.environ.pop(_VARIABLE, None)


def notify(address: str | None, state: str) -> None:
    """Tell `state`, such as READY=1. Silent where nobody listens."""
    if not address:
        return
    # An address that begins with @ is one of the kernel's abstract names.
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), name)
    except OSError:
        pass
