"""What browsers may ask in the name of others: a page of another site must not use a server that trusts this machine.

Such a page cannot read an answer of another site, unless its own name points to that site's address (DNS rebinding).
Then the browser sends that name as `Host`. And it can send a request without reading the answer; then the browser says
so in `Sec-Fetch-Site`, or at least in `Origin` (the rules of CrossOriginProtection in Go's net/http).
"""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from bertlora.serving.refused import RequestError, Why

MISDIRECTED = 421


class Hosts:
    """The names of a server. Addresses and `localhost` always count: they cannot be pointed elsewhere.

    Args:
        names: further names.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {name.lower().rstrip(".") for name in names}

    def check(self, headers: Headers) -> None:
        """Raises HTTPException if a request was sent to another name; one without a name comes from no browser."""
        if not all(self._known(host) for host in headers.getlist("host")):
            raise HTTPException(MISDIRECTED, "host: is not a name of this server; start it with --allow-host NAME")

    def _known(self, host: str) -> bool:
        name = _name(host)
        return name in self._names or name == "localhost" or name.endswith(".localhost") or _is_address(name)


def check_origin(headers: Headers) -> None:
    """Raises RequestError if a browser sends a request for a page of another site."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin.partition("://")[2] != headers.get("host")
    if foreign:
        raise RequestError(Why.FORBIDDEN, "origin: a page of another site may not ask this server")


def _name(host: str) -> str:
    """Returns the name in a header, without the port; empty if there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
