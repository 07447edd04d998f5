"""Checks of the data before training.

Reading order:

- `language`: script and language of a text.
- `lost`: letters that became `?`.
- `near`: near duplicates.
- `word_file`: the words of all texts, in a temporary file.
- `texts`: what is stored of each text.
- `trigrams`, `overlaps`: texts that are part of others, and short texts that differ in one word.
- `similar`: which rows belong together for any of these reasons.
- `kept`: the rows that are kept.
- `find`: the checks.
- `label_checks`: blank rows and labels.
- `places`: where rows are.
- `base_language`: whether the base's vocabulary covers the language.
- `tokens`: the checks that need a tokenizer.
- `features`: simple features of a text.
- `drawn`: rows drawn from each split, with these features.
- `rules`: a rule for each feature.
- `shortcuts`: features that give the label away.
- `shift`: how validation and test differ from train.
- `fix`: what `--fix` removes and moves.
"""

from bertlora.data.checks.drawn import draw_rows
from bertlora.data.checks.find import Check, find_checks
from bertlora.data.checks.fix import fixed
from bertlora.data.checks.kept import KeptRows
from bertlora.data.checks.label_checks import blank_check, label_checks
from bertlora.data.checks.near import merged, near_groups
from bertlora.data.checks.places import named_rows, with_places
from bertlora.data.checks.shift import shift_checks
from bertlora.data.checks.shortcuts import shortcut_checks
from bertlora.data.checks.similar import Similar
from bertlora.data.checks.texts import Examiner, TextFacts
from bertlora.data.checks.tokens import TOKEN_CHECKS, token_checks
from bertlora.data.checks.word_file import WordFile

__all__ = [
    "TOKEN_CHECKS",
    "Check",
    "Examiner",
    "KeptRows",
    "Similar",
    "TextFacts",
    "WordFile",
    "blank_check",
    "draw_rows",
    "find_checks",
    "fixed",
    "label_checks",
    "merged",
    "named_rows",
    "near_groups",
    "shift_checks",
    "shortcut_checks",
    "token_checks",
    "with_places",
]
