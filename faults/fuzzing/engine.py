"""Feeds inputs to a reader until it fails: by atheris, which watches coverage, or by plain mutations of small files.

A reader may give the right result or raise a BertloraError whose message is one line. Anything else is a finding: other
exceptions, more than `HANG_S` seconds for one input, more than `MEMORY_MB`, a dead process.
"""

import io
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

try:
    import atheris  # type: ignore[import-untyped, unused-ignore]
except ImportError:  # it is made for Linux and macOS only
    atheris = None

HANG_S, MEMORY_MB = 10, 3000
TOKENS = [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"1e999", b"-1", b"NaN", b"null", b"true", b"[[[[[[[["]
TOKENS += [b'"', b"'", b"\\ud800", b"\\u2028", b"\n", b"\r", b"\t", b"{", b"}", b"]", b",", b":", b"=", b"0xffffffffff"]
TOKENS += [b"9" * 30, b"\x7f", b"\xc2\x85", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"-0.0", b"{}", b"[]", b'""', b"1.5"]
GUIDED = atheris is not None


@dataclass
class Target:
    """A reader.

    Attributes:
        call: reads an input.
        seeds: small valid inputs.
        longest: bytes that an input may have.
    """

    call: Callable[[bytes], object]
    seeds: Sequence[bytes]
    longest: int = 4096


# Makes a reader whose files go into a folder.
Make = Callable[[Path], Target]


@dataclass
class Found:
    """What one reader was given, and what went wrong.

    Attributes:
        inputs: tried so far.
        faults: kind and place of each finding, with an input that shows it.
    """

    inputs: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    def check(self, target: Target, data: bytes) -> None:
        """Gives one input to a reader."""
        from bertlora.errors import BertloraError  # after atheris has prepared its imports

        self.inputs += 1
        try:
            target.call(data)
        except BertloraError as error:
            if len(str(error).splitlines()) > 1:
                self._add(f"message of several lines: {_place(error)}", data, error)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # Rust's panics are no Exception
            self._add(f"{type(error).__name__}: {_place(error)}", data, error)

    def _add(self, fault: str, data: bytes, error: BaseException) -> None:
        if fault not in self.faults:
            self.faults[fault] = repr(data)
            print(f"--- {fault}\n{data!r}", file=sys.stderr)
            traceback.print_exception(error, limit=-6, file=sys.stderr)


def _place(error: BaseException) -> str:
    """Returns where in bertlora an error was raised."""
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if "bertlora" in step.filename] or steps
    return f"{Path(own[-1].filename).name}:{own[-1].lineno} {own[-1].name}"


@contextmanager
def watched() -> Iterator[None]:
    """Inside, imports are prepared so that atheris sees which lines of bertlora run."""
    if not GUIDED:
        yield
        return
    # It says on stderr what it prepares.
    with redirect_stderr(io.StringIO()), atheris.instrument_imports(["bertlora", "tomllib"]):
        yield


def mutations(seeds: Sequence[bytes], seed: int, longest: int) -> Iterator[bytes]:
    """Yields the seeds, then changed ones without end."""
    yield from seeds
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            start = rng.randint(0, len(data))
            end = min(len(data), start + rng.choice([0, 1, 1, 2, 4, 16]))
            other = rng.choice(seeds)
            part = rng.randint(0, len(other))
            new = [
                rng.choice(TOKENS),
                rng.randbytes(rng.randint(0, 3)),
                b"",
                bytes(data[start:end]) * rng.randint(2, 40),
            ]
            data[start:end] = rng.choice([*new, other[part : part + rng.randint(0, 40)]])
        yield bytes(data[:longest])


def tried(target: Target, inputs: int, seed: int = 1) -> Found:
    """Returns what plain mutations find."""
    found = Found()
    for _, data in zip(range(inputs), mutations(target.seeds, seed, target.longest), strict=False):
        found.check(target, data)
    return found


def fuzz(target: Target, folder: Path, figures: Path, inputs: int, most_s: float, seed: int) -> NoReturn:
    """Fuzzes a reader in this process, which ends then.

    Args:
        target: the reader.
        folder: for files, best in memory.
        figures: gets what is found, as JSON.
        inputs: how many.
        most_s: it ends after so many seconds too.
        seed: of the mutations.
    """
    found, until = Found(), time.monotonic() + most_s

    def one(data: bytes) -> None:
        found.check(target, data)
        last = found.inputs >= inputs or (not found.inputs % 64 and time.monotonic() > until)
        if last or not found.inputs % 4096:
            figures.write_text(json.dumps(vars(found)))
        if last:
            os._exit(0)

    if not GUIDED:
        list(map(one, mutations(target.seeds, seed, target.longest)))
    corpus, words = folder / "corpus", folder / "words"
    corpus.mkdir()
    for i, data in enumerate(target.seeds):
        (corpus / f"{i}").write_bytes(data)
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in TOKENS))
    flags: dict[str, Any] = {"seed": seed, "timeout": HANG_S, "rss_limit_mb": MEMORY_MB, "max_len": target.longest}
    flags |= {"dict": words, "verbosity": 0, "artifact_prefix": f"{folder}/", "reload": 0}
    atheris.Setup(["fuzz", *(f"-{name}={value}" for name, value in flags.items()), str(corpus)], one)
    atheris.Fuzz()
    raise RuntimeError("libFuzzer ends the process")
