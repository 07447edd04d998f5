"""How fast texts are computed, and what follows: the tokens of a batch, and how long one waits for what is to come."""

from bertlora.model.engine import ROW_TOKENS
from bertlora.serving.fair import PORTION_TOKENS

# How much older batches count for the measured speed, next to the last one: about the last ten count.
KEPT = 0.9
FIRST_SPEED = 2000.0  # tokens/s, until the first batch is measured
PATIENCE = 0.1  # part of a batch's time that the next one waits for what is about to come


class Pace:
    """The speed of the last batches.

    Clients that wait for their answers send the next requests a moment after a batch, and a batch of only the first of
    them would be slow for its size. So after a batch of several requests the next one waits until as much is there
    again, for at most a tenth of the time that the batch took.

    Args:
        batch_s: how long a batch should take, in seconds.
    """

    def __init__(self, batch_s: float) -> None:
        self._batch_s = batch_s
        self._tokens = self._seconds = 0.0  # decayed sums over batches
        self._expected, self._patience = 0, 0.0

    @property
    def speed(self) -> float:
        """Tokens/s."""
        return self._tokens / self._seconds if self._seconds else FIRST_SPEED

    @property
    def budget(self) -> float:
        """Tokens of a batch. The last portion may go beyond it."""
        return min(max(self.speed * self._batch_s, PORTION_TOKENS), ROW_TOKENS - PORTION_TOKENS)

    def note(self, tokens: int, seconds: float, requests: int) -> None:
        """Notes a batch."""
        self._tokens = KEPT * self._tokens + tokens
        self._seconds = KEPT * self._seconds + seconds
        self._expected, self._patience = tokens if requests > 1 else 0, PATIENCE * seconds

    def to_wait_for(self) -> tuple[float, float]:
        """Returns for how many tokens to wait before the next batch, and for how many seconds; each time only once."""
        expected, self._expected = min(self._expected, self.budget), 0
        return expected, self._patience
