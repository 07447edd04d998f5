"""Which texts come next: a fair share for each adapter, and for each request of an adapter.

Adapters share the tokens by start-time fair queueing (Goyal, Vin and Cheng 1996, "Start-time Fair Queuing"): the next
portion is of the adapter that had the fewest tokens while it had texts waiting. The requests of an adapter take turns,
the oldest first. A request is cut into small portions, so a huge one delays others by a portion, not by its length.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Tokens of a portion; a longer text is one by itself. Small requests stay whole.
PORTION_TOKENS = 256


@dataclass(eq=False)
class Portion:
    """A part of a request that is computed in one batch.

    Attributes:
        lane: the adapter's name.
        owner: the request.
        tokens: what it costs.
        texts: the texts.
        job: what runs instead, one step in a batch of its own; None for texts.
    """

    lane: str
    owner: Any
    tokens: int
    texts: Sequence[Any] = ()
    job: Generator[int, None, Any] | None = None


@dataclass(eq=False)
class _Lane:
    """The requests of an adapter that wait: `turns` has the portions of each, by request."""

    finish: float = 0.0
    turns: deque[deque[Portion]] = field(default_factory=deque)

    def pop(self) -> Portion:
        """Returns the next portion; its request then goes behind the others."""
        turn = self.turns.popleft()
        portion = turn.popleft()
        if turn:
            self.turns.append(turn)
        return portion


class FairQueue:
    """Portions that wait. It is not safe for threads.

    Attributes:
        texts: how many texts and jobs wait.
        tokens: what they cost.
    """

    def __init__(self) -> None:
        self.texts = self.tokens = 0
        self._lanes: dict[str, _Lane] = {}
        self._starts: list[tuple[float, int, str]] = []  # a heap with each lane that has portions
        self._clock = 0.0
        self._order = itertools.count()

    def add(self, portions: Sequence[Portion]) -> None:
        """Adds portions of one request."""
        for name, group in itertools.groupby(sorted(portions, key=_lane_of), _lane_of):
            lane, own = self._lanes.setdefault(name, _Lane()), deque(group)
            if not lane.turns:
                heapq.heappush(self._starts, (max(self._clock, lane.finish), next(self._order), name))
            lane.turns.append(own)
            self._count(own, 1)

    def take(self, budget: float) -> list[Portion]:
        """Removes and returns the next batch: portions until they have `budget` tokens; or one job."""
        batch: list[Portion] = []
        left = budget
        while self._starts and left > 0:
            start, _, name = self._starts[0]
            lane = self._lanes[name]
            job = lane.turns[0][0].job is not None
            if job and batch:
                break
            portion = lane.pop()
            self._clock, lane.finish = start, start + portion.tokens
            if lane.turns:
                heapq.heapreplace(self._starts, (lane.finish, next(self._order), name))
            else:
                heapq.heappop(self._starts)
            batch.append(portion)
            left -= portion.tokens
            if job:
                break
        self._count(batch, -1)
        self._rest()
        return batch

    def remove(self, owner: Any) -> None:
        """Removes what still waits of a request."""
        for lane in self._lanes.values():
            gone = [turn for turn in lane.turns if turn[0].owner is owner]
            for turn in gone:
                lane.turns.remove(turn)
                self._count(turn, -1)
        self._starts = [entry for entry in self._starts if self._lanes[entry[2]].turns]
        heapq.heapify(self._starts)
        self._rest()

    def _rest(self) -> None:
        """Forgets who had how much, once nothing waits."""
        if not self._starts:
            self._lanes.clear()
            self._clock = 0.0

    def _count(self, portions: Sequence[Portion] | deque[Portion], sign: int) -> None:
        self.texts += sign * sum(len(portion.texts) or 1 for portion in portions)
        self.tokens += sign * sum(portion.tokens for portion in portions)


def _lane_of(portion: Portion) -> str:
    return portion.lane


class Places:
    """Places for what waits, shared by adapters so that one that floods leaves room for others.

    An adapter may hold as many places as then stay free (Choudhury and Hahne 1998, "Dynamic Queue Length Thresholds for
    Shared-Memory Packet Switches"): one at most half of all, each of two at most a third.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.held: dict[str, int] = {}

    @property
    def taken(self) -> int:
        """Places that are held."""
        return sum(self.held.values())

    @contextmanager
    def holding(self, wanted: Mapping[str, int]) -> Iterator[bool]:
        """Inside, these places are held by lane; yields False, and holds none, if an adapter may not have as many."""
        free = self.places - self.taken - sum(wanted.values())
        if any(self.held.get(lane, 0) + count > free for lane, count in wanted.items()):
            yield False
            return
        self._add(wanted, 1)
        try:
            yield True
        finally:
            self._add(wanted, -1)

    def _add(self, wanted: Mapping[str, int], sign: int) -> None:
        for lane, count in wanted.items():
            self.held[lane] = self.held.get(lane, 0) + sign * count
            if not self.held[lane]:
                del self.held[lane]
