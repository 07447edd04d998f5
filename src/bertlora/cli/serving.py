"""The verb that answers over HTTP: serve."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bertlora.cli.console import print_json, say
from bertlora.cli.options import MODEL, PATH, PRECISION, Option, Repeated, Whole
from bertlora.cli.verb import Argument, is_quiet, verb
from bertlora.errors import InputError

if TYPE_CHECKING:
    from bertlora.serving.fleet import Fleet

KEY = "BERTLORA_API_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@verb(
    "Answer over HTTP: many adapters on one base, and a playground.",
    "bertlora serve runs/a spam=runs/b --port 8080",
    Argument(
        "runs",
        text="run folders, exports, or adapters that PEFT saved; each with a name, or named as its folder",
        nargs=-1,
        type=PATH,
        metavar="[[NAME=]RUN]...",
    ),
    Option("--host", "the address to listen at; others than this machine reach 0.0.0.0", default="127.0.0.1"),
    Repeated(
        "--allow-host",
        "a name under which clients may ask, such as a proxy has. Without a key, addresses, localhost and --host "
        "are allowed; with one, every name is until one is given",
        "NAME",
    ),
    Option("--port", "the port; 0 takes a free one", type=Whole(0), default=8080),
    Option("--watch", "a folder of runs: new ones are loaded, changed ones replaced, removed ones dropped", type=PATH),
    Option(
        "--most-loaded",
        "adapters in memory; beyond, the one that was asked least recently is unloaded until it is asked again. "
        "Default: all stay",
        type=Whole(1),
    ),
    Option("--queue", "texts that may wait; beyond, requests get status 429", type=Whole(2), default=4096),
    Option(
        "--batch-ms",
        "aim for batches that take this long: longer ones give more texts a second, shorter ones earlier answers",
        type=Whole(1),
        default=400,
    ),
    Option(
        "--key-file",
        f"a file with the API key that clients must send; default: the environment variable {KEY}, or no key",
        type=PATH,
    ),
    Option("--load-from", "a folder whose runs calls may load and replace; needs a key", type=PATH, metavar="FOLDER"),
    Repeated("--shadow", "a candidate that reads the questions of the adapter NAME, and answers nobody", "NAME=RUN"),
    Option(
        "--shadow-log",
        "a file that keeps the texts on which a candidate and its adapter differ, for labelling; "
        "'bertlora compare FILE' reads it",
        type=PATH,
        metavar="FILE",
    ),
    MODEL,
    PRECISION,
    messages=True,
)
def serve(
    runs: Sequence[str],
    host: str,
    allow_host: Sequence[str],
    port: int,
    watch: str | None,
    most_loaded: int | None,
    queue: int,
    batch_ms: int,
    key_file: str | None,
    load_from: str | None,
    shadow: Sequence[str],
    shadow_log: str | None,
    model: str,
    precision: str,
    as_json: bool,
) -> None:
    """Serves until a signal ends it."""
    candidates = shadow_runs(shadow, shadow_log)
    if not runs and not watch and not load_from:
        raise InputError("required: RUN or --watch; name the runs to serve, or a folder of runs; see 'serve --help'")
    named, key = named_runs(runs), api_key(key_file)
    if load_from and not key:
        raise InputError(
            f"--load-from {load_from}: needs a key, so that not everyone changes adapters; give --key-file"
        )
    from bertlora.serving.app import make_app
    from bertlora.serving.logs import start_logs
    from bertlora.serving.server import address, listening, run_server
    from bertlora.serving.service import Service
    from bertlora.serving.shadow import Shadows

    with listening(host, port) as listener:
        fleet = _fleet(named, watch, most_loaded, model, precision)
        service = Service(fleet, queue=queue, batch_s=batch_ms / 1000)
        if candidates:
            service.shadows = Shadows.load(fleet, candidates, Path(shadow_log) if shadow_log else None)
        names = allowed_hosts(host, allow_host, key)
        app = make_app(service, key=key, runs=Path(load_from) if load_from else None, hosts=names)
        where = address(listener)
        print_json({"url": where, "adapters": fleet.names}) if as_json else print(f"serving at {where}", flush=True)
        if host not in LOOPBACK and not key:
            say(f"caution: anyone who reaches {where} may use it; give --key-file")
        if shadow_log:
            say(f"note: {shadow_log} keeps the texts on which a candidate and its adapter differ")
        start_logs(sys.stderr, is_quiet())
        run_server(app, service, listener)


def allowed_hosts(host: str, named: Sequence[str], key: str) -> list[str]:
    """Returns the names under which clients may ask; empty if a key allows every name.

    Raises:
        InputError: a name has more than a name.
    """
    for name in named:
        if not name or set(name) & set("/:@*[] "):
            raise InputError(f"--allow-host {name}: expected only a name, such as reviews.example.org")
    return [host, *named] if named or not key else []


def named_runs(words: Sequence[str]) -> dict[str, Path]:
    """Returns the runs by name, from `RUN` or `NAME=RUN`.

    Raises:
        InputError: a name is used twice.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).is_dir():
            name, path = Path(word).resolve().name, word
        if name in found:
            raise InputError(f"{word}: the name '{name}' is taken by {found[name]}; give another, as in NAME={path}")
        found[name] = Path(path)
    return found


def shadow_runs(words: Sequence[str], log: str | None) -> dict[str, Path]:
    """Returns the candidates by the name of their adapter, from `NAME=RUN`.

    Raises:
        InputError: a word has another form, a name is used twice, or there is a log without candidates.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not name or not path or name in found:
            raise InputError(f"--shadow: got '{word}', expected NAME=RUN, one candidate for each adapter")
        found[name] = Path(path)
    if log and not found:
        raise InputError("--shadow-log: is for candidates; give --shadow NAME=RUN too")
    return found


def api_key(file: str | None) -> str:
    """Returns the API key, empty if there is none.

    Raises:
        InputError: the file is empty.
    """
    if file is None:
        return os.environ.get(KEY, "").strip()
    key = Path(file).read_text(encoding="utf-8").strip()
    if not key:
        raise InputError(f"--key-file {file}: is empty; write the key in it")
    return key


def _fleet(runs: dict[str, Path], watch: str | None, most_loaded: int | None, model: str, precision: str) -> "Fleet":
    """Returns the adapters, loaded."""
    from bertlora.serving.fleet import Fleet

    fleet = Fleet(most_loaded=most_loaded, model=model, precision=precision)
    for name, path in runs.items():
        fleet.load(name, path)
    if watch:
        fleet.watch(Path(watch))
    return fleet
