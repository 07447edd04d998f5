"""The readers that are fuzzed, by name: each is made by one of the modules beside this one."""

from importlib import import_module

from fuzzing.engine import Make

NAMES = {
    "sources": (
        "CSV",
        "TSV",
        "JSON lines",
        "JSON",
        "Parquet",
        "Excel",
        "plain text",
        "encodings",
        "gzip and zstd",
        "folders",
        "recipe",
        "prepared folder",
        "prepared Parquet",
        "shadow log",
    ),
    "runs": ("run.json", "calibration.json", "tensors of a run", "certificate", "adapter_config.json", "client"),
    "http": ("HTTP, own", "HTTP, text-embeddings-inference", "HTTP, vLLM", "HTTP, Open Inference", "HTTP, requests"),
}
MODULES = {name: module for module, names in NAMES.items() for name in names}


def maker(name: str) -> Make:
    """Returns what makes a reader. Only the module that has it is imported, and with it what the reader needs."""
    found: dict[str, Make] = import_module(f"fuzzing.{MODULES[name]}").TARGETS
    return found[name]
