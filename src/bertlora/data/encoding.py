"""The encoding of a text file: by its byte-order mark, as UTF-8, or detected by charset-normalizer."""

import codecs
from collections.abc import Iterator
from itertools import pairwise
from typing import IO

CHUNK_BYTES = 1 << 20
# If the first 16 MB are UTF-8, the file is. A later byte that is not is an error that names its line.
CHECKED_CHUNKS = 16
ODD_BYTES = 1 << 18
BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Text without a byte-order mark is UTF-16 if this fraction of the even or odd bytes is 0, as in Latin letters.
ZERO_SHARE = 0.3
# What exports write, the most frequent first. charset-normalizer knows 90 more, which it confuses with these.
LIKELY = ["cp1252", "cp1250", "iso8859_2", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"]
LIKELY += ["mac_roman", "cp932", "euc_jp", "gb18030", "big5", "cp949"]
# Encodings may all be right if charset-normalizer's measure of noise (0 to 1) differs by less. Then the text decides.
NOISE = 0.1


def detect_encoding(file: IO[bytes]) -> str:
    """Returns the name of Python's codec for a file, which is read from its start.

    It is `utf-8` too if nothing fits, or if most lines with other than ASCII letters are UTF-8. Reading then fails at
    the first line that is not, and names it.
    """
    chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
    start = next(chunks, b"")
    for mark, encoding in BOMS:
        if start.startswith(mark):
            return encoding
    if wide := _without_mark(start):
        return wide
    decoder = codecs.getincrementaldecoder("utf-8")()
    for number, chunk in enumerate(_from(start, chunks), 1):
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError:
            return _guess(chunk)
        if number == CHECKED_CHUNKS:
            break
    return "utf-8"


def _from(start: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield start
    yield from rest


def _without_mark(start: bytes) -> str:
    """Returns the kind of UTF-16 of a text without a byte-order mark; empty if it is another encoding."""
    sample = start[:4096]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if sample[first::2].count(0) > ZERO_SHARE * len(sample) / 2:
            return encoding
    return ""


def _guess(chunk: bytes) -> str:
    """Returns the most likely encoding of bytes that are not UTF-8."""
    odd = [line for line in chunk.splitlines(keepends=True) if not line.isascii()]
    if 2 * sum(map(_is_utf8, odd)) >= len(odd):
        return "utf-8"
    # These imports take 0.3 s, and few files need them.
    from charset_normalizer import from_bytes

    from bertlora.data.checks.language import language_confidence

    sample = b"".join(odd)[:ODD_BYTES]
    found = list(from_bytes(sample, cp_isolation=LIKELY))
    best = min((match.chaos for match in found), default=0.0)
    ranks: list[tuple[int, float, int]] = []
    for match in found:
        if match.chaos <= best + NOISE:  # it also stands for other encodings that read these bytes in the same way
            text = str(match)
            rank = _odd_letters(text), -round(language_confidence(text), 3)
            ranks += [(*rank, LIKELY.index(name)) for name in match.could_be_from_charset if name in LIKELY]
    return LIKELY[min(ranks)[2]] if ranks else "utf-8"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _odd_letters(text: str) -> int:
    """Returns how many characters do not fit where they are, such as `³` in `by³o` and `Ž` in `cafŽ`.

    They distinguish encodings of one family, in which the same byte is a letter or a sign. Katakana of half width are
    what Chinese in GB 18030 looks like when it is read as Japanese.
    """
    odd = 0
    for before, here in pairwise(text):
        if not here.isascii():
            odd += before.islower() and here.isupper()
            odd += before.isalpha() and here < "\u0100" and not here.isalpha() and here not in "\xa0°®·»"
            odd += "\uff61" <= here <= "\uff9f"
        odd += before in "¦±¶¬¯´¸" and here.isalpha()
    return odd
