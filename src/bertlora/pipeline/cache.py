"""The verb cache: fetches a base model once, for later use offline."""

import json
import shutil
from pathlib import Path
from typing import Any

from bertlora.files import size_of, whole_folder
from bertlora.model.base import ORIGIN, find_base


def cache(model: str, to: str | Path | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Fetches a base model and its tokenizer.

    Args:
        model: a hub id, a folder, or `minilm`.
        to: a folder to copy them to, for a machine without a network; None leaves them in the hub's cache.
        overwrite: replace what `to` holds.

    Returns:
        `model`, `folder`, `revision`, `sha256` of the weights (empty without model.safetensors) and `bytes`.

    Raises:
        ModelError, HubError: the model cannot be found or cannot serve as a classifier.
        OutputError: `to` is not empty, or cannot be written.
    """
    base = find_base(model)
    base.config()
    base.check_weights()
    folder = base.folder
    if to is not None:
        folder = Path(to)
        with whole_folder(folder, overwrite, inputs=[base.folder]) as partial:
            shutil.copytree(base.folder, partial, dirs_exist_ok=True)
            (partial / ORIGIN).write_text(json.dumps(base.origin) + "\n", encoding="utf-8")
    return {
        "model": base.id,
        "folder": str(folder),
        "revision": base.revision,
        "sha256": base.sha256(),
        "bytes": size_of(base.folder),
    }
