"""Checks of the data before anything is learned.

In reading order: `language` (script and language of a text), `near` (near duplicates), `texts` (what is gathered of
each text), `find` (the checks), `tokens` (those that need a tokenizer), `fix` (what `--fix` drops and moves).
"""

from bertlora.data.checks.find import Check, KeptRows, find_checks
from bertlora.data.checks.fix import LEFT_OUT, fixed
from bertlora.data.checks.near import near_groups
from bertlora.data.checks.texts import Examiner, TextFacts
from bertlora.data.checks.tokens import token_checks

__all__ = [
    "LEFT_OUT",
    "Check",
    "Examiner",
    "KeptRows",
    "TextFacts",
    "find_checks",
    "fixed",
    "near_groups",
    "token_checks",
]
