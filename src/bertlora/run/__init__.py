"""The run folder: what it holds, how it is written, run.json last, and how it is loaded."""

from bertlora.run.calibration import Calibration
from bertlora.run.folder import REPORT, Run, save_run, write_history
from bertlora.run.manifest import FORMAT_VERSION, MANIFEST, Manifest, read_manifest, versions
from bertlora.run.probe import Probe

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "REPORT",
    "Calibration",
    "Manifest",
    "Probe",
    "Run",
    "read_manifest",
    "save_run",
    "versions",
    "write_history",
]
