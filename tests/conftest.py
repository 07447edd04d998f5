"""Tiny random models of every architecture, with MiniLM's vocabulary, and a small labelled file."""

import os
import signal
import tempfile

# Tests use no network. Each worker of pytest-xdist has a core of its own, and so one thread. Both are set before any
# library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="bertlora-cache-")  # marks of certificates
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell lets its background jobs ignore Ctrl-C; tests raise it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The time of a case depends on what else runs on the machine.
settings.register_profile("any time", deadline=None)
settings.load_profile("any time")

VOCABULARY = 30522
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 64, "max_position_embeddings": 128, "pad_token_id": 0}

# RoBERTa reserves the first two positions.
ROBERTA = SMALL | {"max_position_embeddings": 130, "pad_token_id": 1, "type_vocab_size": 1}

MODERNBERT = SMALL | {
    "max_position_embeddings": 128,
    "global_attn_every_n_layers": 2,
    "local_attention": 16,
    "cls_token_id": 101,
    "sep_token_id": 102,
    "bos_token_id": 101,
    "eos_token_id": 102,
}

# Architecture → (config class, settings)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SMALL),
    "distilbert": (
        "DistilBertConfig",
        {
            "vocab_size": VOCABULARY,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 128,
        },
    ),
    "roberta": ("RobertaConfig", ROBERTA),
    "xlm-roberta": ("XLMRobertaConfig", ROBERTA),
    "camembert": ("CamembertConfig", ROBERTA),
    "data2vec-text": ("Data2VecTextConfig", ROBERTA),
    "electra": ("ElectraConfig", SMALL | {"embedding_size": 16}),
    # Both layers are one module.
    "albert": ("AlbertConfig", SMALL | {"embedding_size": 16}),
    # Every token has the embedding of task 0.
    "ernie": ("ErnieConfig", SMALL | {"use_task_id": True, "type_vocab_size": 4}),
    "mpnet": ("MPNetConfig", SMALL | {"max_position_embeddings": 130, "pad_token_id": 1}),
    "deberta": (
        "DebertaConfig",
        SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0},
    ),
    "deberta-v2": (
        "DebertaV2Config",
        SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0},
    ),
    "modernbert": ("ModernBertConfig", MODERNBERT),
    "modernbert-mean": ("ModernBertConfig", MODERNBERT | {"classifier_pooling": "mean"}),
}

POSITIVE = ["a joy from the start", "wonderful acting and lovely scenes", "i loved it", "brilliant and moving"]
NEGATIVE = [
    "a dull and lifeless mess",
    "terrible script, awful pacing",
    "i hated every minute",
    "boring and far too long",
]
SEEN = ["on a rainy sunday", "late at night", "with three old friends", "in an empty cinema", "for the second time"]


@pytest.fixture(autouse=True, scope="session")
def fp32_by_auto() -> Iterator[None]:
    """`auto` gives a prediction fp32 on every machine, so that tests can compare its answers with exact ones."""
    from bertlora.model import machine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "_speeds", lambda: {"fp32": 1.0, "bf16": 1.0})
        yield


@pytest.fixture(scope="session", autouse=True)
def few_strengths() -> Iterator[Callable[..., Any]]:
    """Lets regressions choose among every fourth strength: cross-validation is most of the time of a tiny training.

    Gives the function that tries all of them; see `every_strength`.
    """
    from bertlora.rivals import regression

    of_all = regression._cross_validated

    def of_few(features: Any, y_true: Any, classes: int, strengths: Any, *more: Any) -> Any:
        return of_all(features, y_true, classes, strengths[::4], *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regression, "_cross_validated", of_few)
        yield of_all


@pytest.fixture(scope="module")
def every_strength(few_strengths: Callable[..., Any]) -> Iterator[None]:
    """Lets regressions choose among all strengths, as users' do: for tests of these models and of their figures."""
    from bertlora.rivals import regression

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regression, "_cross_validated", few_strengths)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function: architecture → folder with a tiny random encoder checkpoint and MiniLM's tokenizer."""
    return made_once(tiny_model, tmp_path_factory)


def made_once(make: Callable[[str, Path], Path], folders: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function: architecture → the folder that `make` filled for it, once."""
    return cache(lambda architecture: make(architecture, folders.mktemp(architecture)))


def tiny_model(architecture: str, folder: Path, positions: int = 128) -> Path:
    """Fills a folder with a tiny random encoder checkpoint and MiniLM's tokenizer, for texts of up to `positions`."""
    import torch
    import transformers

    from bertlora.model.base import find_base, quiet

    kind, settings = ARCHITECTURES[architecture]
    # RoBERTa has two more.
    settings = settings | {"max_position_embeddings": settings["max_position_embeddings"] + positions - 128}
    config = getattr(transformers, kind)(**settings)
    torch.manual_seed(0)
    with quiet():
        model = transformers.AutoModel.from_config(config)
        for parameter in model.parameters():  # larger than the usual start, so that a mistake shows in the logits
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
    tokenizer = find_base("minilm").tokenizer()
    tokenizer.model_max_length = positions
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Returns a CSV file of 40 tiny reviews, as many of each label, no two alike or near copies."""
    return write_reviews(tmp_path / "reviews.csv")


def write_reviews(path: Path) -> Path:
    """Writes 40 tiny reviews to a CSV file."""
    lines = ["review,sentiment"]
    for seen in SEEN:
        lines += [f'"{text}, {seen}",positive' for text in POSITIVE] + [
            f'"{text}, {seen}",negative' for text in NEGATIVE
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def run_of_reviews(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run folder, trained with the tiny BERT for two epochs on the reviews. Copy it before you change it."""
    from command_line import SMALL

    from bertlora.cli import main

    folder = tmp_path_factory.mktemp("reviews")
    flags = ("--out", folder / "run", "--model", tiny("bert"), *SMALL, "--epochs", 2)
    assert main([str(word) for word in ("train", write_reviews(folder / "reviews.csv"), *flags)]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Returns a function: architecture → its tiny classifier as ONNX files. Writing one takes torch some seconds.

    Its texts may have 512 tokens.
    """
    from onnx_files import exporter

    return exporter(made_once(partial(tiny_model, positions=512), tmp_path_factory), tmp_path_factory)
