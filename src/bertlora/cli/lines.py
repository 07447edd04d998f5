"""Texts as they come: from the arguments, a file, or lines of stdin."""

import queue
import sys
import threading
from collections.abc import Iterator

from bertlora.cli.registry import Arguments
from bertlora.errors import DataError, InputError

# Chunks of (text, second text of a pair or None).
Chunks = Iterator[list[tuple[str, str | None]]]


def text_chunks(args: Arguments, chunk_texts: int) -> Chunks:
    """Returns chunks of the texts that the arguments give, those of stdin with up to `chunk_texts` each."""
    if args.file and args.texts:
        raise InputError("predict takes texts or --file, not both; leave one out")
    if args.file:
        from bertlora.data.prepared import iter_texts

        where = {"text_column": args.text_column, "text_pair_column": args.text_pair_column, "split": args.split}
        return iter_texts(args.file, **where)
    if args.texts:
        if blank := [i for i, text in enumerate(args.texts, 1) if not text.strip()]:
            raise DataError(f"text {blank[0]} is blank; give a text to label")
        if odd := [i for i, text in enumerate(args.texts, 1) if not _is_utf8(text)]:
            raise DataError(f"text {odd[0]} is not UTF-8; convert it first")
        return iter([[(text, None) for text in args.texts]])
    return _stdin_chunks(chunk_texts)


def _stdin_chunks(chunk_texts: int) -> Chunks:
    """Yields the lines of stdin as they come, all that wait in one call, so that neither a pipe nor a person waits."""
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
            if not isinstance(line, str):
                fault = f"stdin line {number} or after: is not UTF-8 ({line.reason}); convert it first"
            elif not _is_utf8(line):
                fault = f"stdin line {number}: is not UTF-8; convert it first"
            elif not line.strip():
                fault = f"stdin line {number}: is blank, expected a text; leave blank lines out"
            else:
                chunk.append((line.rstrip("\r\n"), None))
        # What came before a bad line is answered all the same.
        if chunk:
            yield chunk
        if fault:
            raise DataError(fault)


def _is_utf8(text: str) -> bool:
    """Tells whether a text came from UTF-8: where the locale is C, Python takes odd bytes in as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
