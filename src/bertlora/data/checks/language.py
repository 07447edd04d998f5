"""The script and the language of a text, and of a foreign part in an English text, if they are long enough."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

# With this many letters and this confidence, it named no wrong language for 52,281 texts (docs/data.md).
LANGUAGE_LETTERS = 40
LANGUAGE_CONFIDENCE = 0.6
LANGUAGE_CHARACTERS = 400
SCRIPT_LETTERS = 2

# A part of an English text is certain enough with this confidence (docs/data.md has the false alarms).
PART_CONFIDENCE = 0.8
PART_WORDS = 6
FOREIGN_LETTERS = 12

# Frequent English words that are not words of other languages, and the HTML tag `br`. A long run of words without them
# may be foreign.
_ENGLISH_WORDS = (
    "the|and|of|that|this|it|it's|but|you|not|have|has|had|they|from|which|there|would|about|more|when|their|what|who|if|"
    "like|just|than|then|been|were|could|should|does|did|don't|because|him|she|his|your|very|some|into|how|movie|movies|"
    "other|story|good|really|much|well|get|great|people|first|made|make|way|think|know|watch|being|never|where|through|"
    "why|these|those|any|only|even|up|out|one|two|its|too|them|time|us|after|before|while|ever|little|life|love|"
    "characters|character|young|something|anything|nothing|everything|another|thing|things|doesn't|didn't|isn't|wasn't|"
    "can't|i'm|i've|i'd|he's|she's|there's|that's|they're|you're|won't|couldn't|wouldn't|n't|years|work|world|want|take|"
    "give|makes|comes|seems|quite|enough|though|although|between|both|since|without|right|whole|each|rather|must|may|"
    "might|such|here|off|own|new|say|said|always|during|against|until|himself|themselves|myself|back|old|now|down|every|"
    "few|again|look|going|around|our|br"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split("|"))
# Frequent English words that are words of other languages too. A run with many of them is English.
_SHARED_WORDS = (
    "a|in|to|is|was|i|as|for|on|are|be|at|by|an|he|we|my|so|all|or|no|me|do|can|will|also|best|her|most|over|still|bad|see|"
    "show|plot|scene|same|find"
)
_SHARED = frozenset(_SHARED_WORDS.split("|"))
SHARED_FRACTION = 0.3
# Languages so alike that the confidence of a sentence is spread over them.
_CLOSE = ({"da", "no", "nn"}, {"id", "ms"}, {"bs", "hr", "sr"}, {"cs", "sk"})

# Letters whose Unicode names start with these words belong to another script, or to none.
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
    """Returns the ISO 639 code of a text's language; empty if the text is too short or the result not certain."""
    start = text[:LANGUAGE_CHARACTERS]
    if sum(map(str.isalpha, start)) < LANGUAGE_LETTERS:
        return ""
    language, confidence = _identifier().classify(start)
    return str(language) if confidence >= LANGUAGE_CONFIDENCE else ""


def language_confidence(text: str) -> float:
    """Returns how sure it is that the start of a text is of any language, 0..1."""
    return float(_identifier().classify(text[:LANGUAGE_CHARACTERS])[1])


def forget_languages() -> None:
    """Frees the model that names languages, which takes 74 MiB. The next text loads it again, in 0.3 s."""
    _identifier.cache_clear()


def foreign_part(text: str, words: Sequence[str]) -> str:
    """Returns the language, or the script, of a foreign part in an English text; empty if there is none.

    A part is a run of at least 6 words and 40 letters without any of the most frequent English words. Or it is at least
    12 letters of another script than the text's own.

    Args:
        text: the text.
        words: its words in lower case; see `words_of`.
    """
    if not text.isascii() and (script := _other_script(text)):
        return script
    stops = [-1, *(i for i, word in enumerate(words) if word in _ENGLISH), len(words)]
    for before, after in pairwise(stops):
        if after - before > PART_WORDS:
            run = words[before + 1 : after]
            if sum(map(len, run)) >= LANGUAGE_LETTERS and (language := _foreign(text, run)):
                return language
    return ""


def _foreign(text: str, words: Sequence[str]) -> str:
    """Returns the language of words that follow each other; empty if they are English, or names, or not clear."""
    names = sum(word.capitalize() in text for word in words)
    shared = sum(word in _SHARED for word in words)
    if 2 * names > len(words) or shared >= SHARED_FRACTION * len(words):
        return ""
    part = " ".join(words)[:LANGUAGE_CHARACTERS]
    language, _ = _identifier().classify(part)
    if language == "en":
        return ""
    like_it = next((close for close in _CLOSE if language in close), {language})
    confidence = sum(confidence for other, confidence in _identifier().rank(part) if other in like_it)
    return str(language) if confidence >= PART_CONFIDENCE else ""


def _other_script(text: str) -> str:
    """Returns the script of most letters that are not of the text's own script; empty for fewer than 12 letters."""
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script := _script(character):
            letters[script] += count
    others = letters.most_common(2)[1:]
    return others[0][0] if others and others[0][1] >= FOREIGN_LETTERS else ""


@cache
def _script(character: str) -> str:
    """Returns the script of a letter: the first word of its Unicode name."""
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "").split(" ", 1)[0]
    return "" if name in _NO_SCRIPT else _OTHER_NAMES.get(name, name)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
