#!/usr/bin/env python3
"""Prints how the vocabulary of a base covers English reviews and the foreign sentences of the tests.

    python benchmarks/language_cover.py
    python benchmarks/language_cover.py --model models/multilingual-e5-small

`odd` is the fraction of tokens that are unknown or one letter. The check `base_language` uses these figures.
"""

import argparse
import sys
from pathlib import Path

from bertlora.data.checks.base_language import Vocabulary
from bertlora.data.reviews import embedded_specs
from bertlora.data.rows import iter_texts
from bertlora.model.base import find_base

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from foreign_sentences import SENTENCES


def main() -> None:
    """Prints a line for the reviews and for each language."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--model", default="minilm")
    vocabulary = Vocabulary.of(find_base(parser.parse_args().model).text_tokenizer())
    path = embedded_specs()[0].partition("=")[2]
    reviews = [text for batch in iter_texts(path) for text, _ in batch]
    print("texts          odd   tokens per word")
    for name, texts in {"reviews": reviews, **SENTENCES}.items():
        found = vocabulary.cover(texts)
        print(f"{name:<10} {100 * found.odd:5.1f} %   {found.per_word:15.2f}")


if __name__ == "__main__":
    main()
