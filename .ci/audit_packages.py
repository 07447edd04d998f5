#!/usr/bin/env python3
"""Checks the versions in constraints.txt for known vulnerabilities, with pip-audit.

Its database is on pypi.org. Without a network, or with a mirror that has no vulnerabilities, nothing can be checked:
then it says so in one line, and the exit status is 0. The status is 1 if a version is vulnerable.
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
# A version with vulnerabilities that are known: a service without them has no database.
KNOWN = "https://pypi.org/pypi/jinja2/2.4.1/json"
ANSWER_S = 5


def unavailable() -> str:
    """Returns why the database cannot be asked; empty if it can."""
    try:
        with urllib.request.urlopen(KNOWN, timeout=ANSWER_S) as answer:
            return "" if json.load(answer).get("vulnerabilities") else "pypi.org has no vulnerabilities here"
    except (OSError, ValueError) as error:
        return f"pypi.org does not answer ({error})"


def main() -> int:
    """Returns the exit status."""
    if reason := unavailable():
        print(f"pip-audit: SKIPPED, no package was checked: {reason}")
        return 0
    words = ["--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    return subprocess.run([sys.executable, "-m", "pip_audit", *words]).returncode


if __name__ == "__main__":
    sys.exit(main())
