"""An adapter's folder in PEFT's layout: is it one, its config, and the number of classes of its head.

The folder may come from anyone. What its config may ask of PEFT is checked before PEFT sees it.
"""

import json
import re
from collections.abc import Container
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from bertlora.errors import RunError, first_line

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
OWN = "bertlora"  # a key of the metadata of our files
METADATA = {OWN: "run.json", "format": "pt"}
MOST_BYTES = 4_000_000  # of a config
MOST_RANK = 1024  # a larger one must be in the weights too
# What describes a LoRA that is read with its weights. The rest must have PEFT's default: it can make PEFT import a
# module by its name (megatron_core) or copy layers (layer_replication).
PLAIN = {"peft_type", "task_type", "auto_mapping", "peft_version", "inference_mode", "base_model_name_or_path"}
PLAIN |= {"revision", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"}
PLAIN |= {"target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"}
PLAIN |= {"init_lora_weights", "runtime_config"}
KNOWN = PLAIN | {"bias", "lora_bias", "use_dora", "fan_in_fan_out", "trainable_token_indices", "ensure_weight_tying"}
KNOWN |= {"loftq_config", "megatron_core"}  # only megatron_config makes PEFT import it
PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")


def is_adapter(folder: Path) -> bool:
    """Returns whether the folder holds an adapter in PEFT's layout."""
    return (folder / CONFIG_FILE).is_file()


def read_adapter_config(folder: Path) -> "LoraConfig":
    """Returns PEFT's config of a LoRA adapter for sequence classification.

    Raises:
        RunError: it is missing, of another kind, or without a head.
    """
    from peft import LoraConfig  # brings torch, which `is_adapter` does not need

    try:
        if (folder / CONFIG_FILE).stat().st_size > MOST_BYTES:
            raise RunError(f"{folder / CONFIG_FILE}: has more than {MOST_BYTES:,} bytes, which no adapter needs")
        kind = dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))).get("peft_type")
        if kind != "LORA":
            raise RunError(f"{folder}: holds a {kind} adapter, expected LORA")
        config = LoraConfig.from_pretrained(str(folder))
        _check_asked(folder, config)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{folder / CONFIG_FILE}: cannot be read ({first_line(error)})") from error
    if not (folder / WEIGHTS_FILE).is_file():
        raise RunError(
            f"{folder}: {WEIGHTS_FILE} is missing; save the adapter as safetensors (nothing is unpickled here)"
        )
    _check_ranks(folder, config)
    return config


def weights_bytes(tensors: "dict[str, Tensor]") -> bytes:
    """Returns the content of an adapter's weights file. Equal tensors give equal bytes."""
    from safetensors.torch import save

    content = save(tensors, METADATA)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    # safetensors writes the metadata in a random order.
    header["__metadata__"] = METADATA
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return content[:8] + text.ljust(size) + content[8 + size :]


def check_from_peft(folder: Path) -> None:
    """Raises RunError if bertlora saved an adapter that has lost its run.json, and with it labels and input template.

    Without this check it would load as an adapter that PEFT saved, and give other answers.
    """
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="np") as file:
            ours = OWN in (file.metadata() or {})
    except Exception:  # what is wrong with the file is found where it is read
        return
    if ours:
        raise RunError(f"{folder}: lacks run.json, which has the labels; copy the folder again")


def _check_asked(folder: Path, config: "LoraConfig") -> None:
    """Raises RunError if a config asks for what no adapter of a classifier needs, or has a slow pattern."""
    if not all(isinstance(rank, int) for rank in (config.r, *dict(config.rank_pattern or {}).values())):
        raise RunError(f"{folder / CONFIG_FILE}: a rank is not a whole number")
    for name in unusual(config, KNOWN):
        raise RunError(f"{folder / CONFIG_FILE}: {name} is not supported; save the adapter as plain LoRA")
    for name in PATTERNS:
        for pattern in _patterns(getattr(config, name)):
            if not is_quick(pattern):
                raise RunError(f"{folder / CONFIG_FILE}: {name} has a pattern that is too complex; list the names")


def unusual(config: "LoraConfig", free: Container[str]) -> list[str]:
    """Returns the fields of a config that have another value than PEFT's default, but those in `free`."""
    from peft import LoraConfig

    plain = LoraConfig()
    names = [field.name for field in fields(config)]
    return [name for name in names if name not in free and getattr(config, name) != getattr(plain, name)]


def _patterns(given: Any) -> list[str]:
    return [str(given)] if isinstance(given, str) else [str(one) for one in given or ()]


def is_quick(pattern: str) -> bool:
    """Returns whether a pattern for names of modules is too simple to take long on any of them.

    A repeated group, many groups or many repetitions can make Python's `re` try more ways than there is time for.
    """
    groups, choices, repeats = pattern.count("("), pattern.count("|"), len(re.findall(r"[*+{]", pattern))
    simple = groups <= 4 and choices <= 40 and repeats <= 3 and pattern.count("?") <= 10
    return simple and not re.search(r"\)[*+{]", pattern)


def _check_ranks(folder: Path, config: "LoraConfig") -> None:
    """Raises RunError if a config has a larger rank than its weights: PEFT would take the memory for it."""
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys() if ".lora_" in name]  # noqa: SIM118
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise RunError(f"{folder / WEIGHTS_FILE}: cannot be read ({first_line(error)})") from error
    most = max([MOST_RANK, *(min(shape, default=0) for shape in shapes)])
    for rank in (config.r, *(config.rank_pattern or {}).values()):
        if not 0 < rank <= most:
            raise RunError(f"{folder / CONFIG_FILE}: the rank is {rank:,}, expected 1 to {most:,} for these weights")


def adapter_classes(folder: Path) -> int:
    """Returns K, the number of classes of the head saved with an adapter.

    Raises:
        RunError: no head was saved with it.
    """
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            heads = [
                k
                for k in list(file.keys())
                if k.endswith((".classifier.weight", ".classifier.out_proj.weight", ".score.weight"))
            ]
            if heads:
                return int(file.get_slice(heads[0]).get_shape()[0])
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise RunError(f"{folder / WEIGHTS_FILE}: cannot be read ({error})") from error
    raise RunError(f"{folder}: no classification head was saved with the adapter; train it with task_type SEQ_CLS")
