"""The run folder: what it holds, written last to first, and how it is loaded."""

from bertlora.run.folder import Run, save_run
from bertlora.run.manifest import FORMAT_VERSION, MANIFEST, Manifest, read_manifest, versions
from bertlora.run.probe import Probe

__all__ = ["FORMAT_VERSION", "MANIFEST", "Manifest", "Probe", "Run", "read_manifest", "save_run", "versions"]
