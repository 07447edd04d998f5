"""Random draws from a seed, with torch's global generators left as they were.

transformers, PEFT and dropout draw from torch's global generators and accept no others. A program that calls bertlora
must still get the numbers of its own seed afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


class Draws:
    """A stream of random numbers: where it stands is kept from one use to the next.

    Args:
        seed: of the stream.
        device: the device that draws, in addition to the CPU.
        rank: number of this process, from 0. Each draws other numbers; process 0 draws those of the seed itself.
    """

    def __init__(self, seed: int, device: torch.device | None = None, rank: int = 0) -> None:
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._seed, self._rank = seed, rank
        self._states: list[Tensor] = []
        self._start(self._own_seed())

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, torch's global generators continue this stream. Do not yield to a caller inside."""
        held = self._read()
        self._write(self._states)
        try:
            yield
        finally:
            self._states = self._read()
            self._write(held)

    def restart(self, step: int) -> None:
        """Starts the stream again for a training that resumes after `step`; process 0 has its saved state instead."""
        if self._rank:
            self._start(self._own_seed(step))

    def _own_seed(self, step: int = 0) -> int:
        entropy = [self._seed, self._rank, step]
        return self._seed if not self._rank else int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0])

    def _start(self, seed: int) -> None:
        self._states = [torch.Generator().manual_seed(seed).get_state()]
        if self._cuda is not None:
            self._states.append(torch.Generator(self._cuda).manual_seed(seed).get_state())

    def _read(self) -> list[Tensor]:
        on_gpu = [] if self._cuda is None else [torch.cuda.get_rng_state(self._cuda)]
        return [torch.get_rng_state(), *on_gpu]

    def _write(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(states[1], self._cuda)
