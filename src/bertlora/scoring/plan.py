"""What a scoring does: fixed when it begins, and taken from the folder of parts when it goes on."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertlora.errors import OutputError
from bertlora.pipeline.predict import check_names, predicted_names, predicted_types
from bertlora.scoring.part_folder import PartFolder
from bertlora.scoring.parts import PART_CHARACTERS, PART_ROWS
from bertlora.scoring.sources import Sources
from bertlora.scoring.writing import types_of_text, types_to_text

if TYPE_CHECKING:
    from bertlora.run.loaded import Run

# Files of a run that decide its answers, in its folder or in `adapter/`.
DECIDING = ("run.json", "calibration.json", "*.safetensors", "*.onnx", "*.xml", "*.bin")


@dataclass(frozen=True)
class Plan:
    """What is computed and written.

    Attributes:
        task: of the run.
        kept: the columns of the sources that are written again.
        added: the columns that predictions add, and the names under which they are written.
        options: of the predictions.
        precision: `fp32`, `bf16` or `int8`.
        safe_csv: see `score`.
        types: of all columns, for Parquet; otherwise None.
    """

    task: str
    kept: list[str]
    added: dict[str, str]
    options: dict[str, Any]
    precision: str
    safe_csv: bool
    types: dict[str, Any] | None

    @property
    def names(self) -> list[str]:
        """All columns, in order."""
        return [*self.kept, *self.added.values()]


def belonging(run: "Run", sources: Sources, chosen: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Returns what parts belong to: with another one of these, a part would be another.

    Args:
        run: the run.
        sources: the sources.
        chosen: `probabilities`, `safe_csv`, `id_column` and `precision`.
        options: of the predictions.
    """
    from bertlora.run.manifest import versions

    return {
        "sources": [sources.state(), sources.split, sources.columns],
        "run": identity(run),
        "options": {"predictions": options, **chosen},
        "format": [versions()["bertlora"], PART_ROWS, PART_CHARACTERS],
    }


def planned(run: "Run", sources: Sources, folder: PartFolder, belongs: dict[str, Any], overwrite: bool) -> Plan:
    """Returns the plan of the parts that are there, or begins a new one.

    Raises:
        OutputError: there are parts of something else, and `overwrite` is false.
        InputError: an option does not fit, or the sources have a column with the name of one that is added.
        DataError: a source cannot be read.
    """
    chosen = belongs["options"]
    options, probabilities = chosen["predictions"], chosen["probabilities"]
    predicted = predicted_names(run, options, probabilities)
    run.predictions(**options)  # checks them
    if other := folder.other_than(belongs):
        if not overwrite:
            raise OutputError(other)
        folder.clear()
    state = folder.saved()
    if not state:
        kept, types = sources.names(chosen["id_column"]), ""
        check_names(sources.specs[0], kept, list(_short(predicted, kept).values()))
        if folder.format == "parquet":
            parts = (rows.kept for rows in sources.rows(kept))
            found = predicted_types(run, parts, options, probabilities)
            shown = _short(predicted, kept)
            types = types_to_text({shown.get(name, name): kind for name, kind in found.items()})
        # A second start must not measure again which precision is faster.
        state = belongs | {"kept": kept, "types": types, "precision": run.choose_precision(chosen["precision"])}
        folder.begin(state)
    types_found = types_of_text(state["types"]) if state["types"] else None
    added = _short(predicted, state["kept"])
    return Plan(run.manifest.task, state["kept"], added, options, state["precision"], chosen["safe_csv"], types_found)


def _short(predicted: list[str], kept: list[str]) -> dict[str, str]:
    """Returns each predicted column with its name: `label` for `predicted_label`, unless the sources have a `label`."""
    short = {name: name.removeprefix("predicted_") for name in predicted}
    return {name: name if new in kept else new for name, new in short.items()}


def identity(run: "Run") -> str:
    """Returns a hash of the files that decide a run's answers."""
    files = {path for place in (run.path, run.path / "adapter") for name in DECIDING for path in place.glob(name)}
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(run.path)} ".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
