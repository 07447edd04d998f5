"""One base in memory for many adapters: each has its own low-rank weights and head, and batches mix them.

    shared = MixedBase(find_base("minilm"))
    a = Run.load("runs/a", on=shared)
    b = Run.load("runs/b", on=shared)
    shared.logits([(a.model, inputs_of_a), (b.model, inputs_of_b)])    # rows of tokens hold texts of both

`docs/performance.md` says how a row runs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from weakref import WeakValueDictionary

from torch import Tensor, nn

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader
from bertlora.data.tokenizer import AnyTokenizer
from bertlora.errors import InputError, NotMixableError, RunError
from bertlora.model.base import Base, longest_input
from bertlora.model.build import build_classifier, new_modules
from bertlora.model.engine import ROW_TOKENS, MixedEncoder, Update, mixed_logits, mixes
from bertlora.model.machine import choose_precision, default_device
from bertlora.model.mixable import Saved, read_saved
from bertlora.task import CLASSIFICATION

# Tokens of a row when one adapter is asked by itself: other threads wait no longer than for these.
SMALL_ROW = 256
# What a tokenizer is built from.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")


class MixedBase:
    """A base model in memory that answers for many adapters. Threads may share it: they take turns, row by row.

    Args:
        base: the base model.
        precision: `fp32`, `bf16`, `int8` or `auto`. All adapters run in it.

    Attributes:
        base: the base model.
        precision: `fp32`, `bf16` or `int8`.

    Raises:
        ModelError: the base cannot be loaded.
        NotMixableError: rows of several adapters cannot run its architecture.
    """

    def __init__(self, base: Base, precision: str = "fp32") -> None:
        model = build_classifier(base, ["0", "1"], 0.0, seed=0)
        kind = str(model.config.model_type)
        if not mixes(model):
            raise NotMixableError(
                f"model {base.id}: a {kind} model cannot be shared; load each adapter on a base of its own"
            )
        self.base, self.precision = base, choose_precision(precision, kind)
        self._new = new_modules(model)
        self._known = [f".{name}" for name in base.tensor_names()]
        self._encoder = MixedEncoder(model.to(default_device()).eval(), model.config.pad_token_id or 0, self.precision)
        self._head = self._encoder.head
        self._in_head = {
            f"{at}.{name}".removesuffix("."): module
            for at, part in self._head.modules.items()
            for name, module in part.named_modules()
            if isinstance(module, nn.Linear)
        }
        self._tokenizers: WeakValueDictionary[str, AnyTokenizer] = WeakValueDictionary()

    def load(self, folder: Path, labels: Sequence[str], reader: Reader, task: str = CLASSIFICATION) -> "MixedAdapter":
        """Returns the adapter in `folder`, saved by bertlora or PEFT; only its own weights are read.

        Args:
            folder: holds adapter_config.json and adapter_model.safetensors. The adapter must belong to this base.
            labels: names in the order of the logits; the name of the number in a regression.
            reader: turns texts into inputs; see `tokenizer`.
            task: what the adapter predicts.

        Raises:
            NotMixableError: the adapter changes more than the encoder's linear layers and the head, as DoRA and trained
                biases do.
            RunError: the folder is no LoRA adapter of a sequence classifier, is damaged, or does not fit the base.
        """
        if reader.template.max_length > longest_input(self.base):
            raise RunError(
                f"{folder}: reads {reader.template.max_length} tokens, more than {self.base.id} has positions"
            )
        linears = {name: (m.in_features, m.out_features) for name, m in (self._encoder.linears | self._in_head).items()}
        saved = read_saved(folder, linears)
        head = self._head.replaced(self._head_values(folder, saved, len(labels)))
        pairs = {name: pair for name, pair in saved.pairs.items() if name not in self._in_head}
        return MixedAdapter(self, reader, list(labels), task, self._encoder.update(pairs, head))

    def logits(self, parts: Sequence[tuple["MixedAdapter", Inputs]]) -> list[Array]:
        """Returns the logits of each part, (B, K) float64, in the order of its texts; K differs between adapters.

        Texts of all parts share rows. A text that several adapters are asked runs once through the layers below the
        lowest adapted one.

        Args:
            parts: adapters of this base, and the texts that each is asked. An adapter may come several times.

        Raises:
            InputError: a token is not in the base's vocabulary, or memory runs out with a single text.
        """
        return self._logits(parts, ROW_TOKENS)

    def _logits(self, parts: Sequence[tuple["MixedAdapter", Inputs]], row_tokens: int) -> list[Array]:
        assert all(adapter.shared is self for adapter, _ in parts), "an adapter of another base"
        return mixed_logits(self._encoder, [(adapter.update, inputs) for adapter, inputs in parts], row_tokens)

    def check(self, path: Path, sha256: str) -> None:
        """Raises NotMixableError if a run was trained on other weights than this base has; `sha256` is of its base."""
        if sha256 != self.base.sha256():
            raise NotMixableError(f"{path}: was trained on another base than {self.base.id}; load it on its own base")

    def tokenizer(self, folder: Path) -> AnyTokenizer:
        """Returns the tokenizer in a folder. Folders with the same files share one.

        Raises:
            ModelError: there is none, or it has no padding token.
        """
        files = [folder / name for name in TOKENIZER_FILES]
        digest = sha256()
        for file in files:
            digest.update(sha256(file.read_bytes() if file.is_file() else b"").digest())
        key = digest.hexdigest() if files[0].is_file() else str(folder)
        found = self._tokenizers.get(key)
        if found is None:
            found = self._tokenizers[key] = Base(self.base.id, folder).text_tokenizer()
        return found

    def _head_values(self, folder: Path, saved: Saved, classes: int) -> dict[str, Tensor]:
        """Returns the values of the head's parameters that differ from the base's, by name."""
        own = self._head.parameters()
        *_, last = own
        final = last.rpartition(".")[0]
        if odd := [name for name in saved.whole if name not in own]:
            raise NotMixableError(f"{folder}: {odd[0]} is trained too; only plain LoRA and heads can share a base")
        needed = [module for module in self._new if not any(f".{module}." in name for name in self._known)]
        for name, value in own.items():
            found = saved.whole.get(name)
            expected = (classes, *value.shape[1:]) if name.startswith(f"{final}.") else tuple(value.shape)
            if found is None and (name.startswith(f"{final}.") or any(name.startswith(f"{m}.") for m in needed)):
                raise RunError(
                    f"{folder}: the adapter lacks {name}, and {self.base.id} does not have it either; save the adapter "
                    "with every new module in modules_to_save"
                )
            if found is not None and tuple(found.shape) != expected:
                raise RunError(f"{folder}: {name} has the shape {tuple(found.shape)}, expected {expected}")
        values = {name: value.to(self._encoder.device) for name, value in saved.whole.items()}
        for name, (a, b) in saved.pairs.items():
            if name in self._in_head:  # PEFT can adapt a pooler
                weight = f"{name}.weight"
                values[weight] = values.get(weight, own[weight].detach()) + (b @ a).to(self._encoder.device)
        return values


@dataclass(frozen=True, eq=False)
class MixedAdapter:
    """An adapter on a shared base; a `Run` can have it as its model.

    Attributes:
        shared: the base that it shares.
        reader: turns texts into inputs.
        labels: names in the order of the logits; the name of the number in a regression.
        task: what it predicts.
        update: its low-rank weights and head.
    """

    shared: MixedBase
    reader: Reader
    labels: list[str]
    task: str
    update: Update

    def choose_precision(self, wanted: str) -> str:
        """Returns the precision of the shared base.

        Raises:
            InputError: `wanted` is another one.
        """
        if wanted not in ("auto", self.shared.precision):
            raise InputError(f"precision: got {wanted}, but the shared base runs in {self.shared.precision}")
        return self.shared.precision

    @contextmanager
    def ready(self, precision: str = "fp32") -> Iterator[None]:
        """Inside, predictions start at once, as they always do; other threads need not wait."""
        self.choose_precision(precision)
        yield

    def logits(self, inputs: Inputs, *, precision: str = "fp32") -> Array:
        """Returns logits, (B, K) float64. It takes turns with other threads after every few texts.

        Raises:
            InputError: the shared base runs in another precision.
        """
        self.choose_precision(precision)
        return self.shared._logits([(self, inputs)], SMALL_ROW)[0]
