"""The command line: results to stdout, progress and messages to stderr, status 0, 1 or 2.

Each verb is a short function in one of this folder's modules; heavy imports happen inside it.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from bertlora.cli.registry import VERBS, build_parser, parse
from bertlora.errors import BertloraError

# What the system says of files, folders and disks.
FILE_FAULTS = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
)

# Each registers its verbs, which stand in the help page in this order.
for _room in ("preparing", "auditing", "learning", "judging", "reporting", "predicting", "exporting", "about"):
    import_module(f"bertlora.cli.{_room}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 done, 1 a fault of the program, 2 bad input or bad usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        parser = build_parser()
        args = parse(parser, argv)
        if args.version:
            from bertlora import __version__

            print(__version__)
        elif args.verb is None:
            parser.print_help()
        else:
            VERBS[args.verb].run(args)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader has gone (`| head`): no fault. What is buffered must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        training = argv[:1] == ["train"]
        state = "'bertlora train ... --resume' continues the run" if training else "nothing was half-written"
        return _fail(f"interrupted; {state}", debug)
    except BertloraError as error:
        return _fail(str(error), debug)
    except OSError as error:
        return _fail(_system_fault(error), debug)
    except Exception as error:
        print(
            f"bertlora: internal fault: {type(error).__name__}: {_line(str(error))}; --debug shows where",
            file=sys.stderr,
        )
        if debug:
            traceback.print_exc()
        return 1


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"bertlora: {_line(message)}", file=sys.stderr)
    return 2


def _system_fault(error: OSError) -> str:
    """Returns what the system said; libraries give faults of the network the same type."""
    if not error.filename and error.errno not in FILE_FAULTS:
        return f"{type(error).__name__}: {error}; --debug shows where"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check the path, its permissions and the space left"


def _line(message: str) -> str:
    return " ".join(message.split())
