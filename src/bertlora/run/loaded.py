"""A finished run or an export, loaded and checked: it predicts, and a run exports itself."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertlora.confidence.calibration import reading
from bertlora.confidence.learned import Answers, Learned, answers_of, divisors
from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import Spread
from bertlora.data.folder import Prepared, is_prepared
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader, split_examples
from bertlora.data.reviews import embedded_specs
from bertlora.data.tokenizer import from_transformers
from bertlora.errors import InputError, NotMixableError, RunError
from bertlora.export.certificate import Certificate, proven
from bertlora.export.exported import Exported, prove, replay
from bertlora.export.runners import RUNNERS
from bertlora.files import check_plain
from bertlora.hashes import check_files, is_part
from bertlora.model.adapted import Adapted
from bertlora.model.adapter_files import adapter_classes, check_from_peft, is_adapter, read_adapter_config
from bertlora.model.base import Base, find_base, longest_input
from bertlora.model.mixed import MixedAdapter, MixedBase
from bertlora.recipe import Recipe
from bertlora.run.folder import METRICS
from bertlora.run.manifest import MANIFEST, RECIPE, Manifest, Seen, read_manifest
from bertlora.run.parts import its_base, its_calibration
from bertlora.task import CLASSIFICATION, REGRESSION

if TYPE_CHECKING:
    from bertlora.rivals.fitted import Rivals

PARITY_TEXTS = 100


@dataclass
class Run:
    """A finished run, an adapter that PEFT trained, or an export of one, ready to predict.

    Attributes:
        path: its folder.
        manifest: labels, input template, base and versions.
        model: the model with its adapter, an exported one, or an adapter on a shared base.
        calibration: what the validation rows taught: the temperature of classes, the thresholds of several labels, or
            the spread of numbers.

    Example:
        >>> run = Run.load("runs/a")  # doctest: +SKIP
        >>> run.predict(["A joy from start to finish."])  # doctest: +SKIP
    """

    path: Path
    manifest: Manifest
    model: Adapted | Exported | MixedAdapter
    calibration: Learned

    @classmethod
    def load(cls, path: Path | str, model: str = "", on: MixedBase | None = None, *, replays: bool = True) -> "Run":
        """Loads a run folder, its `adapter/`, an export, or a folder with an adapter that PEFT saved.

        The first time that a machine sees an export, it replays the certificate.

        Args:
            path: the folder.
            model: where the base model is, if it has moved. Its weights must be the same.
            on: a base in memory that the run shares with others; None loads a base of its own.
            replays: False leaves the certificate to the caller, who replays it in any case, as `bertlora verify` does.

        Raises:
            NotMixableError: the run cannot share the base `on`: it is an export, has another base, or is not plain
                LoRA. It can be loaded without `on`.
            RunError: the run is unfinished, of a newer format, damaged, or was trained on another base. Or an export
                does not give the run's answers here.
            InputError: an export needs an extra that is not installed.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run folder; 'bertlora train DATA --out {path}' makes one")
        check_plain(path, path / "adapter")
        if not (path / MANIFEST).is_file() and is_adapter(path):
            check_from_peft(path)
            return cls._of_peft(path, model, on)
        manifest = read_manifest(path)
        certificate = Certificate.load(path)
        if certificate is not None and certificate.format in RUNNERS:
            if on is not None:
                raise NotMixableError(f"{path}: is an export ({certificate.format}), which has no adapter")
            return cls._of_export(path, manifest, certificate, replays)
        adapter = path / "adapter" if (path / "adapter").is_dir() else path
        check_files(path, manifest.files, [name for name in manifest.files if (path / name).is_relative_to(adapter)])
        loaded = _adapter(path, adapter, manifest, model, on)
        if replays and certificate is not None and adapter == path:  # it was exported, perhaps on another machine
            prove(path, certificate, loaded, "fp32" if on is None else on.precision)
        return cls(path, manifest, loaded, its_calibration(path, manifest))

    @classmethod
    def _of_export(cls, path: Path, manifest: Manifest, certificate: Certificate, replays: bool) -> "Run":
        known = proven(path, certificate).exists()
        if not known:
            check_files(path, manifest.files or certificate.files)  # before they are read
        reader, calibration = _reader(path, manifest), its_calibration(path, manifest)
        runner = RUNNERS[certificate.format](path, reader, manifest.labels)
        scale = divisors(calibration, len(manifest.labels))
        exported = Exported(certificate.format, reader, manifest.labels, manifest.task, runner, scale)
        if replays and not known:
            replay(path, certificate, exported)
        return cls(path, manifest, exported, calibration)

    @classmethod
    def _of_peft(cls, path: Path, model: str, on: MixedBase | None) -> "Run":
        """Loads an adapter that PEFT saved. Labels, length and truncation come from its tokenizer and the base."""
        config = read_adapter_config(path)
        base = find_base(model or str(config.base_model_name_or_path))
        classes = adapter_classes(path)
        named = base.config().id2label
        labels = (
            [str(named[i]) for i in range(classes)] if len(named) == classes else [f"LABEL_{i}" for i in range(classes)]
        )
        own = (path / "tokenizer_config.json").is_file()
        folder = path if own else base.folder
        tokenizer = Base(base.id, folder).tokenizer()
        longest = min(int(tokenizer.model_max_length), longest_input(base))
        # As transformers has it: a head with one output predicts a number.
        task = REGRESSION if classes == 1 else CLASSIFICATION
        manifest = Manifest(
            labels, labels, longest, tokenizer.truncation_side, False, base.identity(), Recipe.seed, task=task
        )
        ours = from_transformers(tokenizer, folder) if on is None else on.tokenizer(folder)
        reader = Reader.of(ours, longest, tokenizer.truncation_side)
        if on is not None:
            on.check(path, manifest.base["sha256"])
            return cls(path, manifest, on.load(path, labels, reader, task), its_calibration(path, manifest))
        adapted = Adapted.load(path, base, labels, reader, manifest.seed, task)
        return cls(path, manifest, adapted, its_calibration(path, manifest))

    @property
    def adapted(self) -> Adapted:
        """The model with its adapter.

        Raises:
            InputError: this is an export, which has no adapter, or the adapter is on a shared base.
        """
        if isinstance(self.model, MixedAdapter):
            raise InputError(f"{self.path}: is loaded on a shared base, which only predicts; load it without one")
        if isinstance(self.model, Exported):
            raise InputError(f"{self.path}: is an export ({self.model.format}), without adapter and base; name the run")
        return self.model

    def choose_precision(self, wanted: str) -> str:
        """Returns the precision for `fp32`, `bf16`, `int8` or `auto`.

        `auto` is bf16, or fp16 on a GPU without bf16, if this machine is at least 1.5 times as fast with it, and the
        run's certificate holds in it. On a shared base it is the base's precision.
        """
        chosen = self.model.choose_precision(wanted)
        if wanted != "auto" or chosen == "fp32" or isinstance(self.model, MixedAdapter):
            return chosen
        return chosen if self._holds_in_half else "fp32"

    @cached_property
    def _holds_in_half(self) -> bool:
        certificate = Certificate.load(self.path)
        if certificate is None:
            return False
        try:
            prove(self.path, certificate, self.model, self.model.choose_precision("auto"))
        except RunError:
            return False
        return True

    @property
    def data_folder(self) -> Path | None:
        """The folder of the prepared data on which it was trained; None if it is missing."""
        folder = self.path / self.manifest.data.get("folder", "")
        return folder if self.manifest.data and is_prepared(folder) else None

    @cached_property
    def rivals(self) -> "Rivals":
        """Linear probe and TF-IDF, fitted on the same training rows; empty for an adapter that PEFT trained.

        Raises:
            RunError: a file is damaged.
        """
        from bertlora.rivals.fitted import Rivals  # predictions do not need it

        return Rivals.load(self.path)

    @cached_property
    def seen(self) -> Seen | None:
        """Hashes of the texts that it was trained and validated on; None if it is not known."""
        return Seen.load(self.path)

    def metrics(self) -> dict[str, Any]:
        """Returns metrics.json, what training measured; empty for an adapter that PEFT trained."""
        file = self.path / METRICS
        if not is_part(file):
            return {}
        with reading(file):
            return dict(json.loads(file.read_text(encoding="utf-8")))

    def recipe(self) -> Recipe | None:
        """Returns the recipe of the run; None for an export, and for an adapter that PEFT trained."""
        file = self.path / RECIPE
        return Recipe.named(str(file)) if is_part(file) else None

    @contextmanager
    def ready(self, precision: str = "fp32") -> Iterator[None]:
        """Inside, predictions of this thread start at once; other threads wait. See `Adapted.ready`."""
        with self.model.ready(self.choose_precision(precision)):
            yield

    def predictions(
        self, *, raw: bool = False, abstain: str = "", sets: float | None = None, per_class: bool = False
    ) -> Answers:
        """Returns how outputs become predictions; see `predict`. `notes` say what a threshold or set is based on."""
        options = {"raw": raw, "abstain": abstain, "sets": sets, "per_class": per_class}
        return answers_of(self.calibration, self.manifest.labels, **options)

    def predict(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        base: bool = False,
        raw: bool = False,
        abstain: str = "",
        sets: float | None = None,
        per_class: bool = False,
        precision: str = "fp32",
    ) -> list[dict[str, Any]]:
        """Labels texts, or gives each a number.

        Args:
            texts: the texts.
            pairs: the second texts, if the run classifies pairs.
            base: use the base with its untrained head.
            raw: do not use the temperature.
            abstain: `accuracy=A` or `coverage=C`: give no label below the confidence that keeps this share, 0..1.
            sets: also give the labels that may be right, so that this share of sets, 0..1, contains the right one. In a
                regression the share of intervals that contain the true number; None is 0.9.
            per_class: this share holds for the texts of each class. A class with too few validation rows is in every
                set. Needs `sets`.
            precision: `fp32`, `bf16`, `int8` or `auto`.

        Returns:
            One object per text, in order: `text` (and `text_pair`), `label`, `confidence`, `probabilities` {label: p}.
            With `abstain` also `abstained`, with `sets` also `labels`. If a text may have several labels: `text`,
            `labels` and `probabilities`. In a regression: `text`, `value`, and `interval` ([low, high], or None with
            too few validation rows).

        Raises:
            InputError: a text is not a string, an option is out of its range or does not fit the task, or pairs are
                missing.
        """
        if base and isinstance(self.calibration, Spread):
            return self._means(texts, pairs)
        answers = self.predictions(raw=raw or base, abstain=abstain, sets=sets, per_class=per_class)
        inputs = self.model.reader.read(texts, pairs)
        if not len(inputs):
            return []
        logits = self.adapted.logits(inputs, base=True) if base else self._logits(inputs, precision)
        return _lines(texts, pairs, answers(logits))

    def predict_proba(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, precision: str = "fp32"
    ) -> Array:
        """Returns calibrated probabilities, (B, K) float64, columns in the order of `manifest.labels`.

        Raises:
            InputError: a text is not a string, pairs are missing, or the run predicts numbers.
        """
        if isinstance(self.calibration, Spread):
            raise InputError(f"{self.path}: predicts numbers, which have no probabilities; use predict")
        return self.calibration.probabilities(self._outputs(texts, pairs, precision))

    def predict_values(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, precision: str = "fp32"
    ) -> Array:
        """Returns the numbers of a regression, (B,) float64, in the unit of the training targets.

        Raises:
            InputError: a text is not a string, pairs are missing, or the run predicts classes.
        """
        if not isinstance(self.calibration, Spread):
            raise InputError(f"{self.path}: predicts classes, not numbers; use predict_proba")
        return self._outputs(texts, pairs, precision)[:, 0]

    def _outputs(self, texts: Sequence[str], pairs: Sequence[str] | None, precision: str) -> Array:
        """Returns the outputs of the model, (B, K)."""
        inputs = self.model.reader.read(texts, pairs)
        if not len(inputs):
            return np.zeros((0, len(self.manifest.labels)))
        return self._logits(inputs, precision)

    def _logits(self, inputs: Inputs, precision: str) -> Array:
        return self.model.logits(inputs, precision=self.choose_precision(precision))

    def _means(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[dict[str, Any]]:
        """Returns the answers of the base to a regression: the mean of the training targets for every text."""
        self.model.reader.read(texts, pairs)  # checks them
        mean: dict[str, Any] = {"value": self.manifest.target_mean, "interval": None}
        return _lines(texts, pairs, [mean] * len(texts))

    def export(
        self, to: Path | str, format: str = "merged", overwrite: bool = False, tolerance: float = 0.5
    ) -> dict[str, Any]:
        """Writes the run in another format, with a certificate, and keeps it only if it gives the run's answers.

        Args:
            to: the folder to write.
            format: `merged` (a plain transformers model), `onnx`, `onnx-int8`, `openvino` or
                `adapter` (PEFT's folder).
            overwrite: replace what `to` holds.
            tolerance: points of accuracy that `onnx-int8` may lose on the validation rows.

        Returns:
            `format`, `to`, `bytes` and `base_bytes`; for a format with a model also `texts` and `largest_difference` of
            the comparison, and what the format adds.

        Raises:
            InputError: the format is unknown, or needs an extra that is not installed.
            ParityError: the export gives other results; nothing is kept.
            OutputError: `to` is not empty, or cannot be written.
        """
        from bertlora.export.origin import Origin  # their imports take a while, and predictions do not need them
        from bertlora.export.writing import export

        adapted = self.adapted
        alone = {key: value for key, value in self.manifest.data.items() if key != "folder"}
        manifest = asdict(replace(self.manifest, data=alone))
        validation = None
        if self.data_folder is not None:
            validation = split_examples(adapted.reader, Prepared.load(self.data_folder), "validation")
        texts = self._parity_texts()
        origin = Origin(adapted, self.calibration, self.path, manifest, texts, validation, tolerance)
        return export(origin, Path(to), format, overwrite)

    def _parity_texts(self) -> list[tuple[str, str | None]]:
        """Returns up to 100 real texts: of the run's own data if it is there, otherwise embedded reviews."""
        if self.data_folder is not None:
            data = Prepared.load(self.data_folder)
            rows = data.split(list(data.rows)[-1])
            pairs: list[str | None] = list(rows.pairs) if rows.pairs else [None] * len(rows)
            return list(zip(rows.texts, pairs, strict=True))[:PARITY_TEXTS]
        from bertlora.data.rows import iter_texts  # only exports need it

        path = embedded_specs()[-1].partition("=")[2]
        texts = [text for batch in iter_texts(path) for text, _ in batch][:PARITY_TEXTS]
        return [(text, text if self.manifest.pairs else None) for text in texts]


def _lines(
    texts: Sequence[str], pairs: Sequence[str] | None, answers: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns each answer below its text."""
    seconds = [{}] * len(texts) if pairs is None else [{"text_pair": pair} for pair in pairs]
    return [{"text": text} | pair | one for text, pair, one in zip(texts, seconds, answers, strict=True)]


def _adapter(path: Path, folder: Path, manifest: Manifest, model: str, on: MixedBase | None) -> Adapted | MixedAdapter:
    """Returns the adapter in a folder of the run at `path`, on a base of its own or on one that it shares."""
    if on is None:
        base = its_base(path, manifest, model)
        return Adapted.load(folder, base, manifest.labels, _reader(folder, manifest), manifest.seed, manifest.task)
    on.check(path, manifest.base["sha256"])
    return on.load(folder, manifest.labels, _reader(folder, manifest, on), manifest.task)


def _reader(folder: Path, manifest: Manifest, on: MixedBase | None = None) -> Reader:
    """Returns the reader of a folder with a tokenizer, which adapters of a shared base have in common."""
    tokenizer = Base(manifest.base["id"], folder).text_tokenizer() if on is None else on.tokenizer(folder)
    template = manifest.max_length, manifest.truncation, manifest.long_texts
    return Reader.of(tokenizer, *template, pairs=manifest.pairs)
