"""An adapter's folder in PEFT's layout: is it one, its config, and the number of classes of its head."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from bertlora.errors import RunError

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
OWN = "bertlora"  # in the metadata of weights that bertlora saved


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
        kind = dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))).get("peft_type")
        if kind != "LORA":
            raise RunError(f"{folder}: holds a {kind} adapter, expected LORA")
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{folder / CONFIG_FILE}: cannot be read ({str(error).splitlines()[0]})") from error
    if not (folder / WEIGHTS_FILE).is_file():
        raise RunError(
            f"{folder}: {WEIGHTS_FILE} is missing; save the adapter as safetensors (nothing is unpickled here)"
        )
    return config


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
