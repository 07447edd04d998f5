"""Verbs in processes of their own that need not import torch and transformers again, which takes seconds.

    with ForkServer() as server, server.start(["predict", "run", "a joy"]) as process:
        out, err = process.communicate()

A server imports the modules once, and forks a process for each verb, as the fork server of `multiprocessing` does. Here
the process has the streams, the folder and the environment that a shell would give it, and runs the program.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from io import FileIO
from typing import Any, NoReturn, Self

# Together they import nearly all that a verb needs.
MODULES = ("bertlora.__main__", "bertlora.evaluation.report", "bertlora.pipeline.training_run", "bertlora.run.loaded")
PIPE = subprocess.PIPE


class ForkServer:
    """A process that has imported the modules, and forks one for each verb; close it after use.

    Args:
        modules: what else it imports.
        env: changes of its environment, which libraries read when they are imported.
    """

    def __init__(self, modules: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self._control, theirs = socket.socketpair()
        # One thread each: a fork has only the thread that forked.
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(env or {})
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *MODULES, *modules],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            preexec_fn=hears_interrupts,
        )
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._server.wait()

    def start(
        self,
        words: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] = ".",
        stdin: int = PIPE,
        stdout: int = PIPE,
        stderr: int = PIPE,
    ) -> "Process":
        """Starts a verb. A stream is a pipe, or the number of an open file.

        Args:
            words: the words of the command line, without the program's name.
            env: changes of the environment, for what is not read when a module is imported.
            cwd: the folder it runs in.
        """
        pipes = [None if stream != PIPE else os.pipe() for stream in (stdin, stdout, stderr)]
        given = (stdin, stdout, stderr)
        theirs = [given[i] if pipe is None else pipe[0 if i == 0 else 1] for i, pipe in enumerate(pipes)]
        ours = [None if pipe is None else pipe[1 if i == 0 else 0] for i, pipe in enumerate(pipes)]
        channel, other = socket.socketpair()
        socket.send_fds(self._control, [b"+"], [*theirs, other.fileno()])
        other.close()
        for fd, pipe in zip(theirs, pipes, strict=True):
            if pipe is not None:
                os.close(fd)
        request = {"words": list(words), "env": os.environ | dict(env or {}), "cwd": os.path.abspath(cwd)}
        return Process(channel, request, ours)


class Process:
    """A verb that runs, with the part of `subprocess.Popen` that tests use; its pipes have no buffer."""

    def __init__(self, channel: socket.socket, request: dict[str, Any], pipes: Sequence[int | None]) -> None:
        self._channel, self._lines = channel, channel.makefile("rw", encoding="utf-8")
        print(json.dumps(request), file=self._lines, flush=True)
        self.stdin, self.stdout, self.stderr = (
            None if fd is None else FileIO(fd, "w" if i == 0 else "r") for i, fd in enumerate(pipes)
        )
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()
        self._lines.close()
        self._channel.close()

    def send_signal(self, sign: int) -> None:
        os.kill(self.pid, sign)

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit status; negative: the signal that ended it.

        Raises:
            TimeoutError: it did not end within `timeout` seconds.
        """
        if self.returncode is None:
            self._channel.settimeout(timeout)
            self.returncode = int(self._lines.readline())
        return self.returncode

    def communicate(self, data: bytes = b"", timeout: float = 60) -> tuple[bytes, bytes]:
        """Sends all its input, and returns all that it prints on stdout and stderr."""
        assert self.stdin is not None
        assert self.stdout is not None
        assert self.stderr is not None
        with ThreadPoolExecutor(2) as readers:
            found = [readers.submit(stream.readall) for stream in (self.stdout, self.stderr)]
            self.stdin.write(data)
            self.stdin.close()
            out, err = (one.result(timeout) or b"" for one in found)
        self.wait(timeout)
        return out, err


def hears_interrupts() -> None:
    """A shell starts what runs in its background deaf to interrupts, and a child takes that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# In the server


def serve(control: socket.socket, modules: Sequence[str]) -> None:
    """Forks a process for each request, until nobody can ask any more."""
    for module in modules:
        import_module(module)
    while fds := socket.recv_fds(control, 1, 4)[1]:
        if os.fork() == 0:
            control.close()
            _watch(socket.socket(fileno=fds[3]), fds[:3])
        for fd in fds:
            os.close(fd)
        _forget_the_dead()


def _watch(channel: socket.socket, streams: Sequence[int]) -> NoReturn:
    """Runs the verb in a process, and tells its number and then its exit status."""
    lines = channel.makefile("rw", encoding="utf-8")
    request = json.loads(lines.readline())
    pid = os.fork()
    if pid == 0:
        _run(request, streams)
    for fd in streams:
        os.close(fd)
    print(pid, file=lines, flush=True)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(status, file=lines, flush=True)
    os._exit(0)


def _run(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Becomes the program."""
    for i, fd in enumerate(streams):
        os.dup2(fd, i)
        os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(
            i,
            "r" if i == 0 else "w",
            buffering=1 if i == 2 or os.isatty(i) else -1,
            encoding=old.encoding,
            errors=old.errors,
            closefd=False,
        )
        for i, old in enumerate((sys.stdin, sys.stdout, sys.stderr))
    )
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["bertlora", *request["words"]]
    status = 1
    try:
        status = sys.modules["bertlora.__main__"].program()
        sys.stdout.flush()
    finally:
        os._exit(status)


def _forget_the_dead() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
