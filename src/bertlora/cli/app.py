"""`main`: runs a verb, and turns every error into one line on stderr and an exit status."""

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click
from click.shell_completion import shell_complete

from bertlora.cli.console import visible
from bertlora.cli.verb import verbs
from bertlora.errors import BertloraError, Terminated, flags_shown, suggestion

# Shells set it to ask for completions; see the help page.
COMPLETE = "_BERTLORA_COMPLETE"
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

# Errors of the system that are about files, folders and disks.
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

# Each module registers its verbs. The help page lists them in this order.
ROOMS = (
    "preparing",
    "auditing",
    "training",
    "evaluating",
    "predicting",
    "scoring",
    "exporting",
    "pushing",
    "serving",
    "about",
)
for _room in ROOMS:
    import_module(f"bertlora.cli.{_room}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: the words of the command line, without the program's name; those of this process if None.

    Returns:
        The exit status: 0 success, 1 a fault of the program or a result that `--fail-under` or `--fail-if-worse` does
        not accept, 2 bad input or bad usage, 130 interrupted, 143 terminated.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    with flags_shown():
        return _run(argv, debug="--debug" in argv)


def _run(argv: list[str], debug: bool) -> int:
    """Runs one verb, and returns the exit status."""
    try:
        if instruction := os.environ.get(COMPLETE):
            return shell_complete(verbs, {}, "bertlora", COMPLETE, instruction)
        with verbs.make_context("bertlora", list(argv)) as context:
            verbs.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as left:  # after a help page
        return left.exit_code
    except click.UsageError as error:
        return _fail(usage_fault(error), debug)
    except BrokenPipeError:
        # The reader is gone (`| head`): no fault. What is buffered must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail(f"interrupted; {_state(argv)}", debug, INTERRUPTED)
    except Terminated as ended:
        return _fail(f"terminated; {_state(argv)}", debug, int(ended.code or 1))
    except BertloraError as error:
        return _fail(str(error), debug)
    except OSError as error:
        return _fail(_system_fault(error), debug)
    except Exception as error:
        fault = f"internal fault: {type(error).__name__}: {error}; --debug shows where"
        return _fail(fault, debug, status=1)


def _state(argv: Sequence[str]) -> str:
    """Returns what an interrupt leaves."""
    if argv[:1] == ["score"]:
        return "the same command goes on where it stopped"
    if argv[:1] == ["audit"] and "--out" in argv:
        return "the same command goes on after the folds that are done"
    if argv[:1] != ["train"]:
        return "nothing was half-written"
    if "--overwrite" in argv:
        return "the old run is kept; 'bertlora train ... --resume', without --overwrite, continues the new one"
    return "'bertlora train ... --resume' continues the run"


def usage_fault(error: click.UsageError) -> str:
    """Returns what is wrong with the command line, and where to look."""
    context = error.ctx
    page = f"see '{context.command_path if context else 'bertlora'} --help'"
    match error:
        case click.NoSuchOption() if context and isinstance(context.command, click.Group):
            return f"argument '{error.option_name}' stands where a verb is expected; {page}"
        case click.NoSuchOption():
            return f"argument '{error.option_name}' is unknown; {page}{suggestion(error.option_name, _flags(context))}"
        case click.BadOptionUsage():
            return f"{error.option_name}: expected a value; {page}"
        case click.MissingParameter(param=click.Parameter() as param):
            return f"required: {_name(param)}; {page}"
        case click.BadParameter(param=click.Parameter() as param):
            return f"{_name(param)}: {error.message}"
    return f"{error.format_message()}; {page}"


def _name(param: click.Parameter) -> str:
    return param.opts[0] if isinstance(param, click.Option) else param.human_readable_name.rstrip(".")


def _flags(context: click.Context | None) -> list[str]:
    """Returns the flags that a verb's help lists."""
    params = context.command.get_params(context) if context else []
    return [flag for p in params if isinstance(p, click.Option) and not p.hidden for flag in p.opts]


def _fail(message: str, debug: bool, status: int = 2) -> int:
    """Prints an error as one line, after its traceback if that is asked for, and returns the exit status."""
    if debug:
        import traceback

        traceback.print_exc()
    rank = os.environ.get("RANK", "0")  # of several processes of one training
    who = "bertlora" if rank == "0" else f"bertlora, process {rank}"
    print(f"{who}: {visible(' '.join(message.split()))}", file=sys.stderr)
    return status


def _system_fault(error: OSError) -> str:
    """Returns what the system said. Libraries report faults of the network by the same type."""
    if not error.filename and error.errno not in FILE_FAULTS:
        return f"{type(error).__name__}: {error}; --debug shows where"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check the path, its permissions and the free space"
