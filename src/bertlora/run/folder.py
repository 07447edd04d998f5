"""Writing a run folder: whether a folder can take a run, and the files of a finished one.

RUN/
  recipe.toml     every option as it was resolved
  adapter/        PEFT's layout, the tokenizer, README.md, its own run.json
  history.jsonl   one line per evaluation
  metrics.json    what `train --json` prints
  probe.safetensors    the linear probe on the frozen encoder
  tfidf.safetensors    the TF-IDF model
  seen.safetensors     hashes of the texts that it was trained and validated on
  calibration.json  validation.safetensors    the temperature, and the validation logits on which it was fitted; in a
                  regression the widths of intervals, and the validation rows that gave them
  certificate.json  certificate.safetensors    what the run must answer on another machine
  report.html
  run.json        written last. A folder without it holds a run that did not finish. It has the SHA-256 of the files
                  above, except those that people or `report` may write again: README.md and report.html
  checkpoints/    only until the run is finished; see `training.checkpoints`
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.data.prepared import source_paths
from bertlora.errors import InputError, OutputError, RunError
from bertlora.files import check_vacant, sync_names, write_whole, writing
from bertlora.hashes import CARD, names_below, sha256
from bertlora.recipe import Recipe
from bertlora.run.manifest import MANIFEST, RECIPE, SEEN, Manifest, Seen, read_manifest, versions
from bertlora.run.unfinished import is_begun, is_finished, new_begun

if TYPE_CHECKING:
    from bertlora.confidence.learned import Learned
    from bertlora.model.adapted import Adapted
    from bertlora.rivals.fitted import Rivals

REPORT, HISTORY, METRICS = "report.html", "history.jsonl", "metrics.json"
# What one run may have and the next one not.
OPTIONAL = ("probe.safetensors", "tfidf.safetensors", SEEN, "calibration.json", "validation.safetensors")
CERTIFICATE = "certificate.json", "certificate.safetensors"
PARTS = (RECIPE, HISTORY, METRICS, *CERTIFICATE, *OPTIONAL)


def check_run_folder(
    out: Path, resume: bool, overwrite: bool, inputs: Sequence[str] = (), several: bool = False
) -> None:
    """Checks that `out` can take a run.

    Args:
        out: the run folder.
        resume: continue the run that it holds.
        overwrite: replace what it holds.
        inputs: sources as `prepare` takes them; they must not lie in `out`.
        several: several seeds are trained; some of them may be finished.

    Raises:
        InputError: both `resume` and `overwrite` are given.
        RunError, OutputError: `out` holds another run, other files, or one of the inputs.
    """
    if resume and overwrite:
        raise InputError(
            "--resume and --overwrite exclude each other; --resume continues a run that --overwrite began, too"
        )
    finished, new = is_finished(out), new_begun(out)
    if resume and finished and not (several or new):
        raise RunError(
            f"{out}: the run is finished, there is nothing to resume; name another folder for a new one (more epochs "
            "need one too: the state of the optimiser is not kept)"
        )
    if resume and not (is_begun(out) or new):
        raise RunError(f"{out}: holds no run to resume; leave out --resume")
    if (new or (is_begun(out) and not finished)) and not (resume or overwrite):
        what = "a new run for it did not finish" if new else "holds a run that did not finish"
        raise OutputError(f"{out}: {what}; give --resume to continue it, or --overwrite to start again")
    if not resume:
        check_vacant(out, overwrite, source_paths(inputs))


def seed_folders(out: Path, first: int, seeds: Iterable[int]) -> dict[int, Path]:
    """Returns the run folder of each seed of a recipe: `out` for the first one, folders in `out/seeds` for the others.

    Args:
        out: the run folder.
        first: its own seed.
        seeds: the seeds.
    """
    return {seed: out if seed == first else out / "seeds" / str(seed) for seed in seeds}


def save_run(
    path: Path,
    adapted: "Adapted",
    recipe: Recipe,
    metrics: dict[str, Any],
    *,
    source_labels: list[str] | None = None,
    label_kind: str = "U",
    data: dict[str, str] | None = None,
    calibration: "Learned",
    rivals: "Rivals | None" = None,
    seen: Seen | None = None,
) -> Manifest:
    """Writes a run folder, run.json last.

    Args:
        path: the folder. Files of the same names are replaced.
        adapted: the trained model.
        recipe: all options.
        metrics: what `train --json` prints; its `epochs` become history.jsonl.
        source_labels: the labels as the data has them, if they are shown under other names.
        label_kind: numpy's kind of the labels that were given to `fit`.
        data: fingerprint and folder of the data.
        calibration: what the validation rows taught.
        rivals: fitted on the same training rows, if they are known.
        seen: hashes of the training and validation texts, if they are known.

    Raises:
        OutputError: something cannot be written; then there is no run.json.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / MANIFEST).unlink(missing_ok=True)
        for name in (*OPTIONAL, REPORT):
            (path / name).unlink(missing_ok=True)
        adapted.save(path / "adapter")
        if rivals is not None:
            rivals.save(path)
        if seen is not None:
            seen.save(path)
        if calibration.rows:
            calibration.save(path)
    template = adapted.reader.template
    manifest = Manifest(
        labels=adapted.labels,
        source_labels=source_labels or adapted.labels,
        max_length=template.max_length,
        truncation=template.truncation,
        long_texts=template.long_texts,
        pairs=bool(adapted.reader.pairs),
        base=adapted.base.identity(),
        seed=recipe.seed,
        data=data or {},
        versions=versions(),
        label_kind=label_kind,
        task=adapted.task,
        **calibration.facts(),
    )
    # The adapter may be copied without its run, so its folder has labels, length and the base's hash too.
    alone = replace(manifest, data={key: value for key, value in manifest.data.items() if key != "folder"})
    # These import torch and the hub's client, which checking a folder does not need.
    from bertlora.export.certificate import Certificate
    from bertlora.run.card import model_card

    card = model_card(manifest, adapted.base.origin["id"], recipe, metrics, calibration)
    write_whole(path / "adapter" / CARD, card)
    alone.write(path / "adapter", names_below(path / "adapter", without=(CARD, MANIFEST)))
    write_whole(path / RECIPE, recipe.to_toml())
    Certificate.of(adapted).save(path)
    write_history(path, metrics["epochs"])
    write_whole(path / METRICS, _text_of(metrics))
    written = manifest.write(path, covered(path))
    with writing(path):
        sync_names(path.parent)
    return written


def covered(path: Path) -> list[str]:
    """Returns the names of the files of a run that run.json covers."""
    inside = [f"adapter/{name}" for name in names_below(path / "adapter", without=(CARD,))]
    return [*inside, *(name for name in PARTS if (path / name).is_file())]


def rewrite_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Writes the metrics of a finished run again. A kill at any moment leaves the old ones or the new ones, whole.

    Raises:
        RunError: the run cannot be read.
        OutputError: a file cannot be written.
    """
    manifest, text = read_manifest(path), _text_of(metrics)
    new = hashlib.sha256(text.encode()).hexdigest()
    if METRICS in manifest.files:
        # Until the new ones are there, run.json allows both.
        both = {METRICS: f"{sha256(path / METRICS)} {new}"}
        write_whole(path / MANIFEST, replace(manifest, files=manifest.files | both).to_json())
    write_whole(path / METRICS, text)


def _text_of(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics, indent=2) + "\n"


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Writes RUN/history.jsonl, one line per evaluation."""
    write_whole(path / HISTORY, "".join(json.dumps(line) + "\n" for line in history))
