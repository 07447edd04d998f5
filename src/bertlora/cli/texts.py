"""The texts to predict: from the arguments, a file, or lines of stdin."""

import sys
from collections.abc import Iterator, Sequence
from typing import Unpack

from bertlora.data.named_columns import ColumnNames
from bertlora.errors import DataError, InputError

# Chunks of (text, second text of a pair or None).
Chunks = Iterator[list[tuple[str, str | None]]]


def text_chunks(
    texts: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    file: str | None,
    chunk_texts: int,
    *,
    split: str,
    notes: list[str],
    **columns: Unpack[ColumnNames],
) -> Chunks:
    """Returns chunks of texts, in order.

    Args:
        texts: the texts of the arguments.
        pairs: the pairs of texts of `--pair`.
        file: a file of texts.
        chunk_texts: the largest chunk of lines from stdin.
        split: the split of the file, if it has several.
        notes: gets what the user should know of the file, when all is read.
        columns: the columns of the texts in the file, and how it is written.

    Raises:
        InputError: two of texts, pairs and a file are given.
        DataError: a text is blank or not UTF-8, and not of a file; or the file cannot be read.
    """
    if sum(map(bool, (texts, pairs, file))) > 1:
        raise InputError("predict takes texts or --file, not both, and neither with --pair; leave one out")
    if file:
        from bertlora.data.rows import iter_texts

        return iter_texts(file, split=split, notes=notes, **columns)
    given = [*((text, None) for text in texts), *pairs]
    for i, words in enumerate(given, 1):
        name = f"{'pair' if pairs else 'text'} {i}"
        if not all(word is None or word.strip() for word in words):
            raise DataError(f"{name} is blank; give a text to label")
        if not all(word is None or _is_utf8(word) for word in words):
            raise DataError(f"{name} is not UTF-8; convert it first")
    return iter([given]) if given else _stdin_chunks(chunk_texts)


def _stdin_chunks(chunk_texts: int) -> Chunks:
    """Yields the lines of stdin. A chunk holds all lines that wait, so that neither a pipe nor a person waits."""
    import queue
    import threading

    lines: queue.Queue[str | UnicodeDecodeError | None] = queue.Queue(maxsize=4 * chunk_texts)

    def read() -> None:
        try:
            for line in sys.stdin:
                lines.put(line)
            lines.put(None)
        except UnicodeDecodeError as error:
            lines.put(error)

    threading.Thread(target=read, daemon=True).start()
    number, ended = 0, False
    while not ended:
        chunk: list[tuple[str, str | None]] = []
        fault = ""
        while not fault and (not chunk or (len(chunk) < chunk_texts and not lines.empty())):
            line = lines.get()
            number += 1
            if line is None:
                ended = True
                break
            fault = _fault(line, number)
            if isinstance(line, str) and not fault:
                chunk.append((line.rstrip("\r\n"), None))
        # Lines before a bad one are answered all the same.
        if chunk:
            yield chunk
        if fault:
            raise DataError(fault)


def _fault(line: str | UnicodeDecodeError, number: int) -> str:
    """Returns what is wrong with a line of stdin; empty if it is a text."""
    if isinstance(line, UnicodeDecodeError):
        return f"stdin line {number} or after: is not UTF-8 ({line.reason}); convert it first"
    if not _is_utf8(line):
        return f"stdin line {number}: is not UTF-8; convert it first"
    return "" if line.strip() else f"stdin line {number}: is blank, expected a text; leave blank lines out"


def _is_utf8(text: str) -> bool:
    """Returns whether a text came from UTF-8. With the locale C, Python reads other bytes as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
