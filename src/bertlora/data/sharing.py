"""Which rows of which source go to which split, and which are left out."""

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks import LEFT_OUT, KeptRows, TextFacts, near_groups
from bertlora.data.source import SPLITS
from bertlora.data.splits import stratified_sample, stratified_split
from bertlora.errors import DataError

# For each source, of each of its rows, the label and the split (an index in SPLITS, or LEFT_OUT).
Ids = dict[str, NDArray[np.int32]]
Parts = dict[str, NDArray[np.int8]]


def share_out(ids: Ids, shares: tuple[float, float, float], sample: int, seed: int) -> Parts:
    """Returns for each source the split of each row, as an index in SPLITS, or LEFT_OUT."""
    if "" in ids:
        parts = np.full(len(ids[""]), LEFT_OUT, np.int8)
        drawn = stratified_sample(ids[""], sample, seed)
        parts[drawn] = stratified_split(ids[""][drawn], shares, seed)
        return {"": parts}
    shared = {name: np.full(len(found), SPLITS.index(name), np.int8) for name, found in ids.items()}
    if "validation" not in ids and shares[1] > 0:
        cut = shares[1] / (shares[0] + shares[1])
        shared["train"] = stratified_split(ids["train"], (1 - cut, cut, 0.0), seed)
    for name, parts in shared.items():
        for part in np.unique(parts):
            members = np.flatnonzero(parts == part)
            drawn = stratified_sample(ids[name][members], sample, seed)
            parts[np.delete(members, drawn)] = LEFT_OUT
    return shared


def check_train(parts: Parts, ids: Ids, labels: list[str], name: str) -> None:
    first = next(iter(parts))
    in_train = ids[first][parts[first] == 0]
    if len(np.unique(in_train)) < len(labels):
        raise DataError(
            f"{name}: {len(in_train)} rows for {len(labels)} classes are left to train on, expected one each or more; "
            "give more rows, a larger --sample, or train a larger share of --split"
        )


def kept_rows(ids: Ids, parts: Parts, facts: TextFacts) -> KeptRows:
    kept = {name: np.flatnonzero(part != LEFT_OUT) for name, part in parts.items()}
    return KeptRows(
        facts=facts,
        groups=near_groups(facts.hashes, facts.signatures),
        labels=np.concatenate([ids[name][rows] for name, rows in kept.items()]),
        splits=np.concatenate([parts[name][rows] for name, rows in kept.items()]),
        sources=np.repeat(np.arange(len(kept), dtype=np.int8), [len(rows) for rows in kept.values()]),
        rows=np.concatenate(list(kept.values())),
    )


def parts_of(kept: KeptRows, ids: Ids) -> Parts:
    """Returns for each source the split of each row, as `share_out` does."""
    parts = {name: np.full(len(found), LEFT_OUT, np.int8) for name, found in ids.items()}
    for number, part in enumerate(parts.values()):
        here = kept.sources == number
        part[kept.rows[here]] = kept.splits[here]
    return parts
