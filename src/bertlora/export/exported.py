"""An exported folder that predicts: the same answers as the run's, by another program's model.

EXPORT/
  config.json model.safetensors | model.onnx    the model; its last layer has the temperature in it
  tokenizer.json ...      the tokenizer
  run.json                labels, maximum length, truncation, temperature
  calibration.json  validation.safetensors    what thresholds and label sets are chosen on
  certificate.json  certificate.safetensors    see `certificate`
"""

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader
from bertlora.errors import InputError, RunError
from bertlora.export.certificate import FACTS, Certificate, Model, proven
from bertlora.export.runners import Runner


@dataclass(frozen=True)
class Exported:
    """The model of an exported folder.

    Attributes:
        format: `merged`, `onnx` or `onnx-int8`.
        reader: turns texts into inputs.
        labels: names in the order of the logits; the name of the number in a regression.
        task: what it predicts.
        runner: gives the outputs, which have the temperature in them.
        temperatures: (K,) by which the run's logits were divided.
    """

    format: str
    reader: Reader
    labels: list[str]
    task: str
    runner: Runner
    temperatures: Array

    def choose_precision(self, wanted: str) -> str:
        """Returns the precision in which the format runs.

        Raises:
            InputError: the format does not have the wanted one.
        """
        return self.runner.choose_precision(wanted)

    def ready(self, precision: str = "fp32") -> AbstractContextManager[None]:
        """Inside, predictions of this thread start at once."""
        return self.runner.ready(precision)

    def logits(self, inputs: Inputs, *, precision: str = "fp32") -> Array:
        """Returns the run's logits, (B, K) float64: the exported outputs times the temperature."""
        return self.runner.logits(inputs, precision=precision) * self.temperatures


def verify(folder: Path, model: Model, precision: str = "fp32") -> dict[str, object]:
    """Replays the certificate of a folder.

    Returns:
        `format`, `texts`, `largest_difference`, `tolerance`, `precision`, `files` (how many were
        checked) and `made_on`.

    Raises:
        InputError: the folder has no certificate.
        RunError: a file is damaged or of another export, or an answer differs by more than the tolerance.
    """
    certificate = Certificate.load(folder)
    if certificate is None:
        raise InputError(f"{folder}: has no certificate ({FACTS}); 'bertlora export' and 'bertlora train' write one")
    certificate.check_files(folder)
    return {
        "format": certificate.format,
        "texts": len(certificate.first),
        "largest_difference": replay(folder, certificate, model, precision),
        "tolerance": certificate.allowed(precision),
        "precision": precision,
        "files": len(certificate.files),
        "made_on": certificate.made_on,
    }


def prove(folder: Path, certificate: Certificate, model: Model, precision: str = "fp32", every: int = 1) -> None:
    """Checks the files and the answers of a model, unless this machine has replayed the certificate of these files.

    Args:
        folder: where the files are.
        certificate: the folder's certificate.
        model: the model.
        precision: in which it runs.
        every: replay only each text whose number this divides; a replay of all texts counts too.

    Raises:
        RunError: as for `verify`.
    """
    if not any(proven(folder, certificate, precision, step).exists() for step in {1, every}):
        certificate.check_files(folder)
        replay(folder, certificate, model, precision, every)


def replay(folder: Path, certificate: Certificate, model: Model, precision: str = "fp32", every: int = 1) -> float:
    """Returns how far a model's answers are from the certificate's, and remembers that they are right; see `prove`.

    Raises:
        RunError: an answer differs by more than the tolerance.
    """
    found, allowed = certificate.difference(model, precision, every), certificate.allowed(precision)
    if not found <= allowed:
        raise RunError(
            f"{folder}: does not give the run's answers here: logits differ by up to {found:.2g}, and at most "
            f"{allowed:.2g} is allowed; use another format, or export again on a machine like this one"
        )
    mark = proven(folder, certificate, precision, every)
    with suppress(OSError):  # a cache that cannot be written only costs time
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return found
