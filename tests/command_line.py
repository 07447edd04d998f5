"""Running the command line: in this process with `answer`, or in one of its own with `start`."""

import contextlib
import json
import os
import pty
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from fork_server import ForkServer, Process
from jsonschema import Draft202012Validator

from bertlora.cli import main, verbs

SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"
SMALL = ("--max-length", "32", "--precision", "fp32", "--rank", "2", "--batch-size", "8")


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    status: int
    out: str
    err: str
    words: tuple[str, ...] = ()

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; it fits the verb's schema."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        assert self.out.count("\n") == 1
        check_schema(self.words[0], value)
        return value

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects on stdout, one a line; they fit the schema of predict."""
        found = [json.loads(line) for line in self.out.splitlines()]
        for line in found:
            if "--id-column" not in self.words:
                check_schema("predict", line)
        return found


def check_schema(verb: str, value: dict[str, Any]) -> None:
    """Fails if a verb's JSON does not fit docs/schemas/VERB.json."""
    faults = [f"{fault.json_path}: {fault.message}" for fault in _validator(verb).iter_errors(value)]
    assert not faults, faults


@cache
def _validator(verb: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{verb}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def answer(capsys: pytest.CaptureFixture[str], *argv: object) -> Answer:
    """Runs a verb in this process."""
    capsys.readouterr()
    status = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return Answer(status, captured.out, captured.err, tuple(map(str, argv)))


def good(capsys: pytest.CaptureFixture[str], *argv: object) -> Answer:
    """Runs a verb in this process, and checks that it went well."""
    found = answer(capsys, *argv)
    assert found.status == 0, found.err
    assert "Traceback" not in found.err
    return found


def parsed(verb: str, *argv: str) -> click.Context:
    """Parses the words of a verb without running it."""
    return verbs.commands[verb].make_context(verb, list(argv), parent=click.Context(verbs, info_name="bertlora"))


def start(*argv: object, **more: Any) -> Process:
    """Starts a verb in a process of its own, with pipes; see `ForkServer.start`."""
    return _server().start([os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in argv], **more)


@cache
def _server() -> ForkServer:
    # It ends with this process, when nobody can ask it any more.
    return ForkServer()


def on_terminal(*argv: object, stream: str = "stdout", columns: int = 80) -> str:
    """Returns what a verb prints to a stream that is a terminal."""
    ours, theirs = pty.openpty()
    shown = b""
    with start(*argv, env={"TERM": "xterm", "COLUMNS": str(columns)}, **{stream: theirs}) as process:
        os.close(theirs)
        # When the other end is closed, reading is an error on Linux and returns nothing elsewhere.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, and every folder with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
