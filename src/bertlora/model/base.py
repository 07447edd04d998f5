"""The base model: find it, fetch it, check it, and read its config and tokenizer.

Only `Base.config` and `Base.tokenizer` import transformers; the rest reads the files itself.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from bertlora.data.tokenizer import AnyTokenizer, from_transformers, read_tokenizer
from bertlora.errors import ModelError, RecipeError, first_line
from bertlora.files import check_plain
from bertlora.model.fetch import MINILM_ID, MINILM_SHA256, embedded_folder, fetch_model
from bertlora.task import CLASSIFICATION, task_named

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Longest input of a model without a table of positions.
UNBOUNDED = 1_000_000
# More would take hours to build.
MOST_LAYERS = 1000
# `cache --to` writes this file: the id and the revision of the model it copied.
ORIGIN = "origin.json"
# Their positions start after the padding token's.
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "data2vec-text", "mpnet", "longformer", "xlm-roberta-xl")
# Known to be encoders that classify. transformers need not be asked for these.
ENCODERS = {"bert", "distilbert", "roberta", "electra", "mpnet", "deberta", "deberta-v2", "modernbert", "albert"}
ENCODERS |= {"xlm-roberta", "camembert", "data2vec-text", "ernie"}


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers and PEFT in the block: they warn of a new head, which is expected here."""
    import transformers

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
        id: the user's name for it: a hub id, a folder, or `minilm`.
        folder: the folder of its files.
        revision: the hub's commit; empty for a folder.
    """

    id: str
    folder: Path
    revision: str = ""

    @property
    def origin(self) -> dict[str, str]:
        """The id and revision by which others find it. A folder made by `cache --to` has them in a file."""
        note = self.folder / ORIGIN
        if note.is_file():
            return dict(json.loads(note.read_text(encoding="utf-8")))
        return {"id": MINILM_ID if self.id == "minilm" else self.id, "revision": self.revision}

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files, in order; empty if the folder has none."""
        return sorted(self.folder.glob("model*.safetensors"))

    @property
    def weight_bytes(self) -> int:
        """The size of the weights in bytes."""
        return sum(path.stat().st_size for path in self.weight_files)

    def check_weights(self) -> None:
        """Raises ModelError if there are no weights."""
        if not self.weight_files:
            raise ModelError(
                f"model {self.id}: no model.safetensors; save the model as safetensors (nothing is unpickled here)"
            )

    def sha256(self) -> str:
        """Returns the SHA-256 of the weights in hex; empty if there are none."""
        stamps = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in self.weight_files]
        return _sha256(tuple(stamps)) if stamps else ""

    def identity(self) -> dict[str, str]:
        """Returns what a run keeps of its base: `id`, `revision` and `sha256` of the weights."""
        return {"id": self.id, "revision": self.revision, "sha256": self.sha256()}

    def tensor_names(self) -> list[str]:
        """Returns the names of the tensors in the checkpoint.

        Raises:
            ModelError: a file is damaged.
        """
        names: list[str] = []
        for path in self.weight_files:
            try:
                with safe_open(path, framework="np") as file:
                    names += file.keys()
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path}: not a safetensors file ({first_line(error)})") from error
        return names

    def config(
        self,
        labels: Sequence[str] | None = None,
        encoder_dropout: float | None = None,
        hidden_dropout: float = 0.0,
        task: str = CLASSIFICATION,
    ) -> Any:
        """Returns the transformers config, checked to be an encoder with a sequence-classification class.

        Args:
            labels: label names in order, for the head.
            encoder_dropout: value for every dropout of encoder and head; None keeps those of the checkpoint.
            hidden_dropout: value for every dropout except attention's; 0 means `encoder_dropout`.
            task: what the head predicts; it gives the config its `problem_type`.

        Raises:
            ModelError: the config cannot be read, or the model is not an encoder that classifies.
        """
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_MASKED_LM_MAPPING_NAMES,
            MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        )

        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except Exception as error:  # transformers and what checks its fields raise many types
            raise ModelError(f"model {self.id}: no usable config.json ({first_line(error)})") from error
        kind = config.model_type
        classifies = kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
        if not classifies or kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or config.is_encoder_decoder:
            raise ModelError(
                f"model {self.id}: a {kind} model is not an encoder that classifies; "
                "name a BERT, DistilBERT, RoBERTa, ELECTRA, MPNet, DeBERTa or ModernBERT model"
            )
        if int(getattr(config, "num_hidden_layers", None) or 0) > MOST_LAYERS:
            raise ModelError(f"model {self.id}: its config.json has more than {MOST_LAYERS} layers")
        if labels is not None:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: i for i, label in enumerate(labels)}
            config.problem_type = task_named(task).problem_type
        if encoder_dropout is not None:
            for key, value in config.to_dict().items():
                if "dropout" in key and isinstance(value, float | int | None) and not isinstance(value, bool):
                    setattr(config, key, encoder_dropout if "attention" in key else hidden_dropout or encoder_dropout)
        return config

    def text_tokenizer(self) -> AnyTokenizer:
        """Returns the tokenizer that texts are read with. Loads transformers only if it must build the tokenizer.

        Raises:
            ModelError: there is none, or it has no padding token.
        """
        return read_tokenizer(self.folder) or from_transformers(self.tokenizer(), self.folder)

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Returns the transformers tokenizer, which can be saved for other programs.

        Raises:
            ModelError: there is none, or it has no padding token.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise ModelError(f"model {self.id}: no usable tokenizer ({first_line(error)})") from error
        # Without the files transformers makes a tokenizer without words.
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ModelError(f"model {self.id}: no usable tokenizer (no vocabulary); add the tokenizer's files")
        if tokenizer.pad_token_id is None:
            raise ModelError(f"model {self.id}: its tokenizer has no padding token; name a model that has one")
        return tokenizer


def find_base(model: str, revision: str = "") -> Base:
    """Returns the base model that `model` names: `minilm`, a folder, or a hub id (fetched once, then cached).

    Args:
        model: the name.
        revision: a commit of the hub; empty for the newest.

    Raises:
        ModelError: there is no such folder, or the weights do not have the expected hash.
        HubError: the hub cannot be reached, or does not have the model.
    """
    if model in ("minilm", MINILM_ID):
        return _minilm()
    folder = Path(model).expanduser()
    if folder.is_dir():
        check_plain(folder)
        if not (folder / "config.json").is_file():
            raise ModelError(f"model {model}: the folder has no config.json; name a transformers model folder")
        return Base(str(folder.absolute()), folder.absolute())
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model):
        raise ModelError(f"model {model}: is neither a folder with a config.json, nor a hub id, nor 'minilm'")
    path = fetch_model(model, revision)
    return Base(model, path, path.name)


def longest_input(base: Base) -> int:
    """Returns the most tokens, special tokens included, that the model has positions for.

    Raises:
        ModelError: the config cannot be read, or the model is not an encoder that classifies.
    """
    kind, positions, pad_id = _positions(base)
    return positions - pad_id - 1 if kind in OFFSET_POSITIONS else positions


def check_length(max_length: int, base: Base) -> None:
    """Raises RecipeError if `max_length` is larger than the base has positions for."""
    longest = longest_input(base)
    if max_length > longest:
        raise RecipeError(f"max_length: got {max_length}, expected at most {longest}, the positions of {base.id}")


def _positions(base: Base) -> tuple[str, int, int]:
    """Returns the model type, the size of its table of positions, and the padding id."""
    try:
        table = dict(json.loads((base.folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        table = {}
    found = (table.get("model_type"), table.get("max_position_embeddings"), table.get("pad_token_id", 1))
    # transformers knows the default of what is missing, and reports what is wrong.
    if found[0] not in ENCODERS or table.get("is_encoder_decoder") or not all(type(n) is int for n in found[1:]):
        config = base.config()
        found = (config.model_type, getattr(config, "max_position_embeddings", UNBOUNDED), config.pad_token_id)
    return str(found[0]), int(found[1] or 0), int(found[2] or 0)


@cache
def _sha256(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Returns the SHA-256 of files. Computed once in a process, unless their times or sizes change."""
    digest = hashlib.sha256()
    for path, _, _ in stamps:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _minilm() -> Base:
    embedded = embedded_folder()
    folder = embedded or fetch_model(MINILM_ID)
    base = Base("minilm", folder, "" if embedded else folder.name)
    found = base.sha256()
    if found != MINILM_SHA256:
        raise ModelError(
            f"model minilm: {base.folder} has SHA-256 {found[:12]}..., expected {MINILM_SHA256[:12]}...; reinstall it"
        )
    return base
