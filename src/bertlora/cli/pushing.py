"""The verb that sends a run to a model hub: push."""

import sys
from typing import TYPE_CHECKING, Any

from bertlora.cli.console import show
from bertlora.cli.options import PATH, flag
from bertlora.cli.verb import Argument, verb
from bertlora.errors import InputError

if TYPE_CHECKING:
    from bertlora.pipeline.push import Parcel


def show_push(found: dict[str, Any]) -> None:
    """Prints where the files are now."""
    if found["sent"]:
        show(f"{found['url']}: {len(found['files'])} files, commit {found['commit'][:12]}")
    else:
        show("nothing was sent")


@verb(
    "Send a run or an export to a model hub, after a yes.",
    "bertlora push runs/a someone/reviews-lora",
    Argument("run", text="a run folder, an adapter, or a folder that export wrote", type=PATH, metavar="RUN"),
    Argument("repo", text="the repository, OWNER/NAME; it is made if it is not there", metavar="REPO"),
    flag("--public", "everybody may read the repository; without it, it must be private"),
    flag("--yes", "send without a question, for scripts"),
    show=show_push,
)
def push(run: str, repo: str, public: bool, yes: bool) -> dict[str, Any]:
    """Says what will be sent, asks, and sends."""
    from bertlora.pipeline.push import pack, send

    parcel = pack(run, repo, public)
    _announce(parcel)
    if not (yes or _agreed()):
        return parcel.facts() | {"sent": False}
    return send(parcel) | {"sent": True}


def _announce(parcel: "Parcel") -> None:
    """Prints what will be sent, on stderr."""
    from bertlora.cli.console import print_table, visible
    from bertlora.files import megabytes

    facts = parcel.facts()
    print_table(["file", "size"], [[f["path"], megabytes(f["bytes"])] for f in facts["files"]], stderr=True)
    for note in parcel.notes:
        print(visible(f"note: {note}"), file=sys.stderr)
    readers = "private: only its owners read it" if parcel.private else "PUBLIC: everybody reads it"
    total = f"{len(facts['files'])} files, {megabytes(facts['bytes'])}"
    print(visible(f"{parcel.source} goes to {parcel.repo} ({readers}): {total}"), file=sys.stderr)


def _agreed() -> bool:
    """Returns whether the user at the terminal says yes."""
    if not sys.stdin.isatty():
        raise InputError("nothing was sent: there is no terminal to ask for a yes; give --yes")
    print("Send these files? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
