"""The playground: a page at `/` that asks the server's own API. Plain HTML, CSS and JavaScript, without a build.

The page may load and ask nothing but this server, and no script runs but its files: its Content-Security-Policy says
so to the browser.
"""

from pathlib import Path

from fastapi import APIRouter, Response

from bertlora.serving.refused import RequestError, Why

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Read once; a request can name nothing else.
FILES = {path.name: path.read_bytes() for path in Path(__file__).parent.iterdir() if path.suffix in KINDS}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # the page and its scripts are of one version
}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> Response:
    """Returns the page."""
    return await part("index.html")


@router.get("/playground/{name}")
async def part(name: str) -> Response:
    """Returns a file of the page.

    Raises:
        RequestError: there is no such file.
    """
    if name not in FILES:
        raise RequestError(Why.UNKNOWN, f"the playground has no file {name!r}")
    return Response(FILES[name], media_type=KINDS[Path(name).suffix], headers=HEADERS)
