"""The script and the language of a text, as far as the text is long enough to tell."""

import unicodedata
from collections import Counter
from functools import cache
from typing import Any

# Of texts with this many letters, it names a wrong language for none of 52,281 where it is this sure (docs/data.md).
LANGUAGE_LETTERS = 40
LANGUAGE_CONFIDENCE = 0.6
LANGUAGE_CHARACTERS = 400
SCRIPT_LETTERS = 2

# What Unicode calls a letter of these is a sign of another script, or of none.
_NO_SCRIPT = {"MATHEMATICAL", "MODIFIER", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "FEMININE", "MASCULINE", "MICRO"}
_OTHER_NAMES = {"FULLWIDTH": "LATIN", "HALFWIDTH": "CJK", "HIRAGANA": "CJK", "KATAKANA": "CJK"}


def script_of(text: str) -> str:
    """Returns the script of most letters of a text, such as `LATIN` or `CJK`; empty for fewer than 2 letters."""
    if text.isascii():
        return "LATIN" if sum(map(str.isalpha, text[:LANGUAGE_CHARACTERS])) >= SCRIPT_LETTERS else ""
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script := _script(character):
            letters[script] += count
    found = letters.most_common(1)
    return found[0][0] if found and found[0][1] >= SCRIPT_LETTERS else ""


def language_of(text: str) -> str:
    """Returns the ISO 639 code of a text's language; empty where it is too short, or too doubtful, to tell."""
    start = text[:LANGUAGE_CHARACTERS]
    if sum(map(str.isalpha, start)) < LANGUAGE_LETTERS:
        return ""
    language, confidence = _identifier().classify(start)
    return str(language) if confidence >= LANGUAGE_CONFIDENCE else ""


@cache
def _script(character: str) -> str:
    """Returns the first word of a letter's name in Unicode, which is its script."""
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "").split(" ", 1)[0]
    return "" if name in _NO_SCRIPT else _OTHER_NAMES.get(name, name)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
