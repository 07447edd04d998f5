"""The embedded film reviews: 1,110 short texts, easy and hard, written for this project, with a fixed split.

They are three JSONL files in the folder `embedded`. The demo gives their paths to `prepare`, so they pass the same
checks as the files of a user. `docs/datasheet.md` says how they were made and what they are for.
"""

from pathlib import Path

from bertlora.data.source import SPLITS

LABELS = ("negative", "positive")

# For the demo's last step. The first three are positive, the last three negative. None is in the data.
SAMPLE_TEXTS = (
    "There is nothing here I did not enjoy, and I went in with a toothache.",
    "A glorious, big-hearted adventure with a finale that lifts you out of your chair.",
    "I can't say it was bad. I can say it was marvelous, twice, to everyone on the tram.",
    "What a triumph: a thriller so relaxing that I finished my knitting.",
    "It is not funny, it is not moving, and it is certainly not short.",
    "A dull, clumsy mess that wastes a good cast on a story nobody bothered to finish.",
)


def embedded_specs() -> list[str]:
    """Returns the sources of the embedded reviews for `prepare`.

    Returns:
        Three specs in the order of `SPLITS`, each `SPLIT=PATH` with an absolute path: `train=/.../train.jsonl`.
    """
    folder = Path(__file__).resolve().with_name("embedded")
    return [f"{split}={folder / split}.jsonl" for split in SPLITS]
