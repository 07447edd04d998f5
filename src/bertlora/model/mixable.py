"""An adapter's files as plain tensors: A and s B of each linear layer, and the head's weights.

PEFT would put them into a model of its own. A shared base takes them as they are, in PEFT's own meaning.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load
from torch import Tensor

from bertlora.errors import NotMixableError, RunError, first_line
from bertlora.model.adapter_files import PLAIN, WEIGHTS_FILE, read_adapter_config, unusual

if TYPE_CHECKING:
    from peft import LoraConfig

PREFIX = "base_model.model."


@dataclass(frozen=True)
class Saved:
    """The tensors of an adapter, in fp32, by names in the classifier.

    Attributes:
        pairs: linear layer → A (R, in) and s B (out, R).
        whole: parameter that was trained whole → its value.
    """

    pairs: dict[str, tuple[Tensor, Tensor]]
    whole: dict[str, Tensor]


def read_saved(folder: Path, linears: Mapping[str, tuple[int, int]]) -> Saved:
    """Returns the adapter in a folder, saved by bertlora or PEFT.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.
        linears: linear layer that may be adapted → its inputs and outputs.

    Raises:
        NotMixableError: it is not plain LoRA on these layers.
        RunError: it is damaged, or does not fit the base.
    """
    config = read_adapter_config(folder)
    _check_plain(folder, config)
    tensors = _tensors(folder / WEIGHTS_FILE)
    adapted = sorted({name.rpartition(".lora_")[0] for name in tensors if ".lora_" in name})
    if odd := [name for name in adapted if name not in linears]:
        raise NotMixableError(f"{folder}: adapts {odd[0]}, which is not a linear layer of the shared encoder")
    pairs = {}
    for name in adapted:
        pair = [tensors.pop(f"{name}.lora_{part}.weight", None) for part in "AB"]
        pairs[name] = _scaled(folder, config, name, pair, linears[name])
    if odd := [name for name in tensors if ".lora_" in name]:
        raise NotMixableError(f"{folder}: has {odd[0]}, which plain LoRA has not")
    _check_targets(folder, config, linears, pairs)
    return Saved(pairs, tensors)


def _check_plain(folder: Path, config: "LoraConfig") -> None:
    """Raises NotMixableError if the adapter is not plain LoRA or rsLoRA."""
    odd, start = unusual(config, PLAIN), config.init_lora_weights
    if isinstance(start, str) and start != "gaussian":
        odd.append("init_lora_weights")  # such a start changes the base's weights
    if odd:
        raise NotMixableError(f"{folder}: {odd[0]} is {getattr(config, odd[0])!r}; only plain LoRA can share a base")


def _tensors(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file in fp32, in memory of their own: the file may be replaced at any time."""
    try:
        found = {name.removeprefix(PREFIX): value.float() for name, value in load(file.read_bytes()).items()}
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise RunError(f"{file}: cannot be read ({first_line(error)}); the run is damaged") from error
    # In a shared row, infinity times 0 would spoil the answers of other adapters.
    if odd := [name for name, value in found.items() if not bool(value.isfinite().all())]:
        raise RunError(f"{file}: {odd[0]} has values that are not finite numbers; the run is damaged")
    return found


def _scaled(
    folder: Path, config: "LoraConfig", name: str, pair: list[Tensor | None], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Returns A and s B of a linear layer, with rank and scale as PEFT chooses them."""
    from peft.utils.other import get_pattern_key

    ranks, alphas = config.rank_pattern, config.alpha_pattern
    rank = int(ranks.get(get_pattern_key(list(ranks), name), config.r))
    alpha = float(alphas.get(get_pattern_key(list(alphas), name), config.lora_alpha))
    a, b = pair
    if a is None or b is None or a.shape != (rank, size[0]) or b.shape != (size[1], rank):
        raise RunError(f"{folder}: the adapter does not fit its config or the base (lora_A and lora_B of {name})")
    return a, b * (alpha / (math.sqrt(rank) if config.use_rslora else rank))


def _check_targets(
    folder: Path, config: "LoraConfig", linears: Mapping[str, tuple[int, int]], pairs: Mapping[str, object]
) -> None:
    """Raises RunError if the config adapts a layer for which the file has no update."""
    from peft.tuners.tuners_utils import check_target_module_exists

    if config.target_modules is None:
        return
    if lacking := [n for n in linears if n not in pairs and check_target_module_exists(config, n)]:
        raise RunError(f"{folder}: the adapter lacks {lacking[0]}, which its config names; the run is damaged")
