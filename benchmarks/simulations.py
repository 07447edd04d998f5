#!/usr/bin/env python3
"""How often evaluation keeps what its words promise, where the truth is known.

    python benchmarks/simulations.py                            # every promise, 2,000 draws each
    python benchmarks/simulations.py --draws 200 chance advice  # two topics

Prints a Markdown table. A promise is kept if the measured share is within three standard errors of what it promises.
`tests/evaluation/test_promises.py` runs the same with fewer draws.
"""

import argparse
import sys
import time

from promises import PROMISES

DRAWS = 2_000


def main() -> int:
    """Simulates, prints, and returns 1 if a promise is broken."""
    topics = list(dict.fromkeys(promise.topic for promise in PROMISES))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"{', '.join(topics)}; default: all")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"draws of each case; default: {DRAWS}")
    a = parser.parse_args()
    began, broken = time.perf_counter(), 0
    print("| topic | case | event | promised | measured | kept |\n|---|---|---|---:|---:|---|")
    for promise in PROMISES:
        if promise.topic in (a.topics or topics):
            for event, share in promise.measured(a.draws).items():
                kept = promise.kept(share, a.draws)
                broken += not kept
                shown = [promise.promised, f"{100 * share:.1f} %", "yes" if kept else "**no**"]
                print(f"| {' | '.join([promise.topic, promise.case, event, *shown])} |", flush=True)
    print(f"\n{a.draws:,} draws each, {time.perf_counter() - began:.0f} s; {broken} broken", file=sys.stderr)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
