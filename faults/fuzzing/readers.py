"""The readers that are fuzzed: the parts of each by name, with the module beside this one that makes them."""

from importlib import import_module

from fuzzing.engine import Make

READERS: dict[str, dict[str, str]] = {
    "CSV and TSV": dict.fromkeys(["CSV", "TSV"], "sources"),
    "JSON": dict.fromkeys(["JSON", "JSON lines"], "sources"),
    "Parquet": {"Parquet": "sources"},
    "Excel and OpenDocument": {"sheets": "sources"},
    "text": dict.fromkeys(["plain text", "encodings", "gzip and zstd"], "sources"),
    "folders": {"folders": "sources"},
    "recipe": {"recipe": "sources"},
    "prepared data": dict.fromkeys(["dataset.json", "prepared Parquet"], "sources"),
    "run": dict.fromkeys(["run.json", "calibration.json", "tensors", "adapter_config.json"], "runs"),
    "certificate": {"certificate": "runs"},
    "shadow log": {"shadow log": "sources"},
    "client": {"client": "runs"},
    "HTTP": dict.fromkeys(["own", "text-embeddings-inference", "vLLM", "Open Inference", "requests"], "http"),
}
PARTS = {name: module for parts in READERS.values() for name, module in parts.items()}


def maker(part: str) -> Make:
    """Returns what makes a part of a reader. Only its module is imported, and with it what it needs."""
    found: dict[str, Make] = import_module(f"fuzzing.{PARTS[part]}").TARGETS
    return found[part]
