"""Feeds inputs to a reader until it fails: by atheris, which watches coverage, or by plain mutations, which is faster.

A reader may give the right result or raise a BertloraError whose message is one line. Anything else is a finding: other
exceptions, more than `HANG_S` seconds for one input, more than `MEMORY_MB`, a dead process.
"""

import io
import json
import os
import random
import resource
import signal
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
# How a process ends that hangs or needs too much memory: by libFuzzer (see its FuzzerOptions.h), or by an alarm.
OVER_MEMORY = 71
ENDS = {70: "hang", -signal.SIGALRM: "hang", OVER_MEMORY: "memory"}
FIGURES, LAST = "figures.json", "last"  # files of a process: what it found so far, and its newest input
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


@dataclass
class Share:
    """The inputs that one process gives to a reader; it ends with the last of them.

    Attributes:
        folder: for files, best in memory.
        corpus: a folder of inputs that ran lines no other input ran; guided fuzzing fills it.
        inputs: how many.
        most_s: the process ends after so many seconds too.
        seed: of the mutations.
    """

    folder: Path
    corpus: Path
    inputs: int
    most_s: float
    seed: int

    def guided(self, target: Target) -> NoReturn:
        """Gives inputs that libFuzzer makes; only what was imported inside `watched` guides it."""
        words = self.folder / "words"
        self.corpus.mkdir()
        for i, data in enumerate(target.seeds):
            (self.corpus / f"{i}").write_bytes(data)
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in TOKENS))
        flags: dict[str, Any] = {"seed": self.seed, "timeout": HANG_S, "rss_limit_mb": MEMORY_MB}
        flags |= {"max_len": target.longest, "dict": words, "verbosity": 0, "reload": 0}
        flags["artifact_prefix"] = f"{self.folder}/"
        command = ["fuzz", *(f"-{name}={value}" for name, value in flags.items()), str(self.corpus)]
        atheris.Setup(command, self._giver(target))
        atheris.Fuzz()
        raise RuntimeError("libFuzzer ends the process")

    def mutated(self, target: Target) -> NoReturn:
        """Gives plain mutations of the seeds, and of the corpus if there is one."""
        corpus = sorted(self.corpus.iterdir()) if self.corpus.is_dir() else []
        seeds = [*target.seeds, *(file.read_bytes() for file in corpus)]
        give = self._giver(target)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # also ends a call that never returns to Python
        for data in mutations(seeds, self.seed, target.longest):
            signal.alarm(HANG_S)
            give(data)
        raise RuntimeError("the last input ends the process")

    def _giver(self, target: Target) -> Callable[[bytes], None]:
        """Returns what gives one input to the reader."""
        found, until = Found(), time.monotonic() + self.most_s
        newest = os.open(self.folder / LAST, os.O_CREAT | os.O_WRONLY)

        def give(data: bytes) -> None:
            os.ftruncate(newest, os.pwrite(newest, data, 0))
            found.check(target, data)
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MEMORY_MB << 10:
                os._exit(OVER_MEMORY)
            last = found.inputs >= self.inputs or (not found.inputs % 64 and time.monotonic() > until)
            if last or not found.inputs % 4096:
                (self.folder / FIGURES).write_text(json.dumps(vars(found)))
            if last:
                os._exit(0)

        return give
