"""Which texts are the address of a server."""

import ipaddress
import re
from urllib.parse import urlsplit

from .ranges import require


def require_url(url: str) -> None:
    """Raise ValueError for what is no server's address, or may hold a secret, which is then not quoted."""
    rule = "put a key into the secrets file, not into the address"
    require("@" not in url, f"url: has user:password@; {rule}")
    require("?" not in url and "#" not in url, f"url: has a ? or #; {rule}")
    form = f"url={url}: http://HOST:PORT, or https://"
    require(url.isprintable() and " " not in url, f"url={url!r}: has a space or a line break")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:  # of the port, or of brackets
        raise ValueError(f"{form} ({error})") from None
    require(parts.scheme in ("http", "https") and _is_host(host), form)
    require(port != 0 and not parts.netloc.endswith(":"), f"{form}; a port is 1 to 65535")
    require("]" not in parts.netloc.rstrip(":0123456789")[:-1], form)


def _is_host(name: str) -> bool:
    """Return whether a machine may have this name or address."""
    try:
        if ":" in name or re.fullmatch(r"[0-9.]+", name):
            return bool(ipaddress.ip_address(name))
        written = name.encode("idna").decode()
    except ValueError:  # of an address, or of a name that none can have
        return False
    return re.fullmatch(r"[A-Za-z0-9._-]+", written) is not None
