"""Rivals that are kept until a run is finished: a training that resumes does not fit them again.

FOLDER/  probe.safetensors  tfidf.safetensors    as in a run folder
         validation.safetensors                  the rivals' outputs for the validation rows
         head.safetensors                        the trained tensors once the head is aimed; empty if it was not
         facts.json                              seconds and learning curve
"""

import json
from dataclasses import replace

from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, from_numpy

from bertlora.rivals.fitted import Rivals
from bertlora.rivals.probe import CurvePoint
from bertlora.sealed import Kept, sealing

VALIDATION, HEAD, FACTS = "validation.safetensors", "head.safetensors", "facts.json"


def keep_rivals(kept: Kept, rivals: Rivals, head: dict[str, Tensor]) -> None:
    """Writes rivals, and the tensors that training starts from.

    Raises:
        OutputError: they cannot be written.
    """
    curve = [[point.rows, point.accuracies] for point in rivals.curve]
    outputs = {name: from_numpy(found) for name, found in rivals.on_validation.items()}
    with sealing(*kept) as folder:
        rivals.save(folder)
        (folder / VALIDATION).write_bytes(save_tensors(outputs))
        (folder / HEAD).write_bytes(save_tensors(head))
        (folder / FACTS).write_text(json.dumps({"seconds": rivals.seconds, "curve": curve}), encoding="utf-8")


def kept_rivals(kept: Kept) -> tuple[Rivals, dict[str, Tensor]] | None:
    """Returns what `keep_rivals` wrote; None if it is not there, not whole, or belongs to something else."""
    folder = kept.folder
    if not kept.whole():
        return None
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    found = replace(
        Rivals.load(folder),
        seconds=facts["seconds"],
        curve=[CurvePoint(rows, tuple(accuracies)) for rows, accuracies in facts["curve"]],
        on_validation={name: found.numpy() for name, found in load_tensors(folder / VALIDATION).items()},
    )
    return found, load_tensors(folder / HEAD)
