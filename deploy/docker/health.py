"""The health check of the image: status 0 where the bridge answers. It starts often, so it imports little.

The lock file in the data folder says where the server listens: `address` is `unix:PATH` or `http://HOST:PORT`.
"""

import json
import os
import socket

TIMEOUT_S = 4.0


def answers(address: str) -> bool:
    """Whether `/health` answers 200 there. Raises OSError, ValueError."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        connection.connect(address.removeprefix("unix:"))
    else:
        # 0.0.0.0 and :: lead to this host.
        host, _, port = address.removeprefix("http://").rpartition(":")
        connection = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
    with connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(64).startswith(b"HTTP/1.1 200 ")


try:
    with open(os.path.join(os.environ["BRIDGE_DATA_DIR"], "lock")) as file:
        well = answers(json.load(file)["address"])
except (OSError, ValueError, KeyError) as error:
    raise SystemExit(f"The bridge does not answer: {error!r}") from None
raise SystemExit(0 if well else "The bridge does not answer with 200.")
