"""The checks that need a tokenizer and a maximum length: what truncation cuts, what the tokenizer does not know.

Letters: B texts, T tokens.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.base_language import base_language_check
from bertlora.data.checks.find import Check, a_check, percent
from bertlora.data.checks.language import forget_languages
from bertlora.data.checks.places import with_places
from bertlora.data.folder import Prepared
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader, split_examples
from bertlora.data.tokens import TokenTable

TOKEN_CHECKS = ("truncated", "unknown_tokens", "base_language")
# Above these shares a check is a warning: tokens cut of all tokens, texts with unknown tokens of all texts.
LOST_TOKENS_SHARE = 0.05
UNKNOWN_TEXTS_SHARE = 0.01
IDS_AT_ONCE = 1 << 24


def token_checks(data: Prepared, reader: Reader) -> list[Check]:
    """Returns those of TOKEN_CHECKS that found something, as `find_checks` does.

    The tokens are kept in the prepared folder.

    Raises:
        InputError: the data hold pairs of texts and the reader reads single ones, or the reverse.
    """
    unknown_id = reader.tokenizer.unknown_id
    found = checks_of_inputs(data, lambda split: split_examples(reader, data, split).inputs, unknown_id)
    found += base_language_check(data, reader.tokenizer)
    forget_languages()  # no check comes after these
    return with_places(data, found)


def checks_of_inputs(data: Prepared, read: Callable[[str], Inputs], unknown_id: int | None) -> list[Check]:
    """Returns `truncated` and `unknown_tokens`, without places.

    Args:
        data: the prepared data.
        read: returns the inputs of a split.
        unknown_id: the tokenizer's id for what it does not know; None if it knows every byte.
    """
    cut_rows, unknown_rows, texts = [], [], 0
    lost = tokens = unknown = 0
    for split in data.rows:
        inputs = read(split)
        rows = np.fromiter(data.stream(split, "row"), np.int64)
        unread = inputs.unread
        texts, tokens, lost = texts + len(inputs), tokens + int(inputs.whole.sum()), lost + int(unread.sum())
        counts = _unknown(inputs, unknown_id)
        unknown += int(counts.sum())
        cut_rows.append((split, rows[unread > 0]))
        unknown_rows.append((split, rows[counts > 0]))
        max_length, way = inputs.template.max_length, inputs.template.long_texts
    if not texts:
        return []
    count = sum(len(rows) for _, rows in cut_rows)
    other = " or long_texts = windows" if way == "truncate" and not data.has_pairs else ""
    advice = (
        f"{percent(count / texts)} of texts do not fit in {max_length} tokens, and "
        f"{percent(lost / max(1, tokens))} of all tokens are cut; a larger max_length{other} keeps them"
    )
    severity = "warning" if lost > LOST_TOKENS_SHARE * tokens else "note"
    checks = [*_listed("truncated", severity, cut_rows, advice)]
    count = sum(len(rows) for _, rows in unknown_rows)
    advice = (
        f"{percent(count / texts)} of texts have characters that the tokenizer does not know ({unknown:,} tokens); "
        "remove them, or use a model that knows them"
    )
    severity = "warning" if count > UNKNOWN_TEXTS_SHARE * texts else "note"
    return [*checks, *_listed("unknown_tokens", severity, unknown_rows, advice)]


def _unknown(inputs: Inputs, unknown_id: int | None) -> NDArray[np.int64]:
    """Returns the unknown tokens of each text, (B,)."""
    counts = np.zeros(len(inputs), np.int64)
    if unknown_id is not None:
        for table in (inputs.first, *([] if inputs.second is None else [inputs.second])):
            counts += _occurrences(table, unknown_id)
    return counts


def _occurrences(table: TokenTable, token: int) -> NDArray[np.int64]:
    """Returns how often each text has a token, (B,). The ids may be on disk and are read in parts."""
    counts = np.zeros(len(table), np.int64)
    for start in range(0, len(table.ids), IDS_AT_ONCE):
        places = start + np.flatnonzero(table.ids[start : start + IDS_AT_ONCE] == token)
        counts += np.bincount(np.searchsorted(table.offsets, places, side="right") - 1, minlength=len(table))
    return counts


def _listed(name: str, severity: str, rows: list[tuple[str, NDArray[np.int64]]], advice: str) -> Iterator[Check]:
    splits = [split for split, found in rows for _ in found]
    yield from a_check(name, severity, np.concatenate([found for _, found in rows]), splits, advice)
