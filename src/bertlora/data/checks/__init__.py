"""Checks of the data before training.

Reading order:

- `language`: script and language of a text.
- `near`: near duplicates.
- `texts`: what is stored of each text.
- `find`: the checks.
- `places`: where rows are.
- `tokens`: the checks that need a tokenizer.
- `fix`: what `--fix` removes and moves.
"""

from bertlora.data.checks.find import Check, KeptRows, find_checks
from bertlora.data.checks.fix import fixed
from bertlora.data.checks.near import near_groups
from bertlora.data.checks.places import named_rows, with_places
from bertlora.data.checks.texts import Examiner, TextFacts
from bertlora.data.checks.tokens import token_checks

__all__ = [
    "Check",
    "Examiner",
    "KeptRows",
    "TextFacts",
    "find_checks",
    "fixed",
    "named_rows",
    "near_groups",
    "token_checks",
    "with_places",
]
