"""The program: `bertlora`, `python -m bertlora`, and `accelerate launch -m bertlora`."""

import gc
import sys

from bertlora.cli import main

# torch, transformers and PEFT make some million objects that stay until the end. With Python's threshold of 700, the
# collector looks through them again and again.
THRESHOLD = 100_000


def program() -> int:
    """Runs one verb of this process's command line, and returns the exit status."""
    gc.set_threshold(THRESHOLD)
    try:
        return main()
    finally:
        # At exit Python would look through all objects once more, for about a second.
        gc.freeze()


if __name__ == "__main__":
    sys.exit(program())
