"""The verb push: a run or an export goes to a model hub. What is sent is known, and can be shown, before it is sent.

The repository gets the adapter's files at its root, as PEFT expects them. Never sent: training data, recipe, history
and the linear models, whose files hold paths, words or hashes of the data.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from bertlora.errors import HubError, InputError, RunError, first_line
from bertlora.export.certificate import ANSWERS, FACTS
from bertlora.hashes import CARD, sha256
from bertlora.model.adapter_files import is_adapter
from bertlora.pipeline.public_report import without_texts
from bertlora.run.folder import REPORT
from bertlora.run.manifest import MANIFEST, read_manifest

# Of an adapter's folder. PEFT's users keep other files in it, such as data and states of an optimiser.
ADAPTER_FILES = (
    MANIFEST,
    CARD,
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.bpe.model",
    "spiece.model",
    "sentencepiece*.model",
    "calibration.json",
    "validation.safetensors",
)
# Of a run's own folder: what abstention and label sets need. They hold logits and labels, and no text.
CALIBRATION_FILES = ("calibration.json", "validation.safetensors")


@dataclass(frozen=True)
class Parcel:
    """What a push sends, and where it goes.

    Attributes:
        source: the folder.
        repo: the repository, OWNER/NAME or NAME.
        private: whether only its owner may read it.
        files: path in the repository → a file of this machine, or the content itself.
        notes: what the sender should know.
    """

    source: Path
    repo: str
    private: bool
    files: dict[str, Path | bytes]
    notes: list[str]

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of each file."""
        return {
            name: len(what) if isinstance(what, bytes) else what.stat().st_size for name, what in self.files.items()
        }

    def facts(self) -> dict[str, Any]:
        """Returns `repo`, `private`, `files` [{`path`, `bytes`}] and `bytes` of all."""
        sizes = self.sizes()
        files = [{"path": name, "bytes": size} for name, size in sizes.items()]
        return {"repo": self.repo, "private": self.private, "files": files, "bytes": sum(sizes.values())}


def pack(run: str | Path, repo: str, public: bool = False) -> Parcel:
    """Returns what a push would send. Asks nobody: no request leaves the machine.

    Args:
        run: a run folder, an adapter, or an exported folder.
        repo: the repository, OWNER/NAME, or NAME for the owner of the token.
        public: everybody may read it.

    Raises:
        RunError: the run is unfinished, or the folder holds nothing to send.
        InputError: `repo` cannot be the id of a repository.
        HubError: offline mode is on, or there is no token.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; name a run folder, or a folder that 'bertlora export' wrote")
    notes: list[str] = []
    # A run has a certificate too, but next to its folder `adapter`.
    if (folder / FACTS).is_file() and not (folder / "adapter").is_dir():
        files = _export_files(folder)
    elif is_adapter(folder):
        files = _covering(_named(folder, ADAPTER_FILES))
    else:
        files, notes = _run_files(folder)
    if CARD not in files:
        notes.append(f"there is no {CARD}, so the repository has no model card")
    _check_repo(repo)
    _check_access()
    return Parcel(folder, repo, not public, files, notes)


def send(parcel: Parcel) -> dict[str, Any]:
    """Sends a parcel as one commit: the repository gets all of it or nothing.

    Returns:
        `repo`, `private`, `files`, `bytes`, `url` of the repository, and the name of the `commit`.

    Raises:
        HubError: the hub cannot be reached, the token has no such right, or the repository is public and the parcel is
            private.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    version = metadata.version("bertlora")
    disable_progress_bars()
    api = HfApi(library_name="bertlora", library_version=version)
    try:
        made = api.create_repo(parcel.repo, private=parcel.private, exist_ok=True)
        private = bool(api.repo_info(made.repo_id).private)
        # An older repository keeps what it was: the hub then ignores what `create_repo` asks for.
        if private or not parcel.private:
            message = f"Sent by bertlora {version}"
            adds = [CommitOperationAdd(name, what) for name, what in parcel.files.items()]
            commit = api.create_commit(made.repo_id, adds, commit_message=message)
    except Exception as error:  # of the hub's library, its HTTP client and its storage client: no common type
        raise HubError(f"{parcel.repo}: {_reason(error)}; the repository has nothing new") from error
    if parcel.private and not private:
        raise HubError(f"{made.repo_id}: the repository is public; no file was sent; give --public, or name another")
    return parcel.facts() | {"repo": made.repo_id, "private": private, "url": str(made), "commit": commit.oid}


def _run_files(folder: Path) -> tuple[dict[str, Path | bytes], list[str]]:
    """Returns the files of a run, and notes on them."""
    read_manifest(folder)
    files = _named(folder / "adapter", ADAPTER_FILES) | _named(folder, CALIBRATION_FILES)
    if MANIFEST not in files:
        raise RunError(f"{folder / 'adapter'}: has no {MANIFEST}; the run is damaged")
    files = _covering(files | _certificate(folder, files))
    if not (folder / REPORT).is_file():
        return files, [f"there is no {REPORT}; 'bertlora report {folder}' writes it"]
    page = without_texts((folder / REPORT).read_text(encoding="utf-8"))
    if page is None:
        return files, [
            f"{REPORT} is not sent, since it may quote texts: another version of bertlora wrote it; "
            f"'bertlora report {folder}' writes it again"
        ]
    note = f"{REPORT} goes without the texts that it quotes; it has slices, words that the checks found, paths of data"
    return files | {REPORT: page.encode()}, [note]


def _certificate(folder: Path, sent: Iterable[str]) -> dict[str, Path | bytes]:
    """Returns a run's certificate for its adapter, whose files are at the root of the repository."""
    if not (folder / FACTS).is_file():
        return {}
    table = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    hashes = {name.removeprefix("adapter/"): hash for name, hash in table["files"].items()}
    # run.json is made for what is sent, and covers the certificate.
    covered = {name: hashes[name] for name in sent if name in hashes and name != MANIFEST}
    table |= {"format": "adapter", "files": covered}
    return {FACTS: f"{json.dumps(table, indent=2)}\n".encode(), ANSWERS: folder / ANSWERS}


def _covering(files: dict[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Returns the files with a run.json that covers what is sent, which may be less than what the folder has."""
    manifest = files.get(MANIFEST)
    if not isinstance(manifest, Path):
        return files
    covered = {name: _sha256(what) for name, what in files.items() if name not in (MANIFEST, CARD)}
    return files | {MANIFEST: replace(read_manifest(manifest.parent), files=covered).to_json().encode()}


def _sha256(what: Path | bytes) -> str:
    return hashlib.sha256(what).hexdigest() if isinstance(what, bytes) else sha256(what)


def _named(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path | bytes]:
    """Returns the files of a folder whose names fit."""
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)
    }


def _export_files(folder: Path) -> dict[str, Path | bytes]:
    """Returns all files of an exported folder, without hidden ones."""
    return {str(path.relative_to(folder)): path for path in _visible(folder)}


def _visible(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            yield from _visible(path) if path.is_dir() else [path]


def _check_repo(repo: str) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_url(repo, CARD)  # asks nobody
    except HFValidationError as error:
        raise InputError(f"repository '{repo}': expected OWNER/NAME ({first_line(error)})") from error


def _check_access() -> None:
    """Checks what can be known without the hub."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise HubError("offline mode is on (HF_HUB_OFFLINE), so nothing can be sent; unset it to push")
    if get_token() is None:
        raise HubError("there is no token for the hub; run 'hf auth login', or set HF_TOKEN")


def _reason(error: BaseException) -> str:
    """Returns what the hub, or the way to it, said."""
    if isinstance(error, RuntimeError) and error.__cause__:  # "Error while uploading": the cause says why
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    match status:
        case 401:
            return "the hub does not know the token (401); run 'hf auth login', or set HF_TOKEN"
        case 403:
            return "the token may not write there (403); make one with the right to write, or name another repository"
        case None:
            return f"the hub cannot be reached ({first_line(error)})"
    return f"the hub refused it ({first_line(error)})"
