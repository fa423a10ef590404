# SPDX-License-Identifier: Apache-2.0
"""Pairs of picture and depth image, by stamp; only the newest pair is kept."""

from collections import Counter
from collections import deque
from dataclasses import dataclass
from threading import Condition
from time import monotonic
from typing import Any


@dataclass(frozen=True)
class Pair:
    """
    A picture's message with the depth image's of the same moment.

    - color: the picture
    - depth: the depth image; None when there is no depth sensor
    - arrived: when the picture came, seconds of the monotonic clock
    """

    color: Any
    depth: Any | None
    arrived: float


class Pairing:
    """
    A one-slot buffer between the callbacks that fill it and the worker that empties it.

    Stamps are only compared with each other, in order of arrival, so that a bag that loops or a
    simulation that starts again pairs like any other stream. A camera may send its depth images
    some pictures late, so a few messages of either kind wait for their partner.

    - tolerance: greatest difference of the stamps of a pair, seconds
    - unpaired_in_a_row: pictures since the latest pair

    :param waiting: how many messages of either kind wait for their partner
    """

    def __init__(self, tolerance: float = 0.02, waiting: int = 10) -> None:
        self.tolerance = tolerance
        self._dropped: Counter[str] = Counter()
        self.unpaired_in_a_row = 0
        self._colors: deque[tuple[float, Any, float]] = deque(maxlen=waiting)
        self._depths: deque[tuple[float, Any]] = deque(maxlen=waiting)
        self._newest: Pair | None = None
        self._changed = Condition()

    def add_color(self, stamp: float, message: Any, alone: bool) -> None:
        """
        Take a picture.

        :param stamp: seconds
        :param alone: do not wait for a depth image
        """
        with self._changed:
            if alone:
                self._offer(Pair(message, None, monotonic()))
                return
            if len(self._colors) == self._colors.maxlen:
                self._dropped['no depth image fits'] += 1
            self.unpaired_in_a_row += 1
            self._colors.append((stamp, message, monotonic()))
            self._match()

    def add_depth(self, stamp: float, message: Any) -> None:
        """Take a depth image; the stamp is in seconds."""
        with self._changed:
            self._depths.append((stamp, message))
            self._match()

    def release(self) -> None:
        """Offer the newest picture that waits: no depth image will come for it."""
        with self._changed:
            if self._colors:
                _, message, arrived = self._colors.pop()
                self._dropped['no depth image fits'] += len(self._colors)
                self._colors.clear()
                self._offer(Pair(message, None, arrived))

    def take(self, timeout: float) -> Pair | None:
        """Wait for a new pair and take it; None when none came within the timeout, in seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None, timeout)
            pair, self._newest = self._newest, None
            return pair

    def drop(self, reason: str) -> None:
        """Count a pair that was taken but cannot be used."""
        with self._changed:
            self._dropped[reason] += 1

    @property
    def dropped(self) -> dict[str, int]:
        """Return how many pictures were not used, by reason."""
        with self._changed:
            return dict(self._dropped)

    def clear(self) -> None:
        """Forget all messages."""
        with self._changed:
            self._colors.clear()
            self._depths.clear()
            self._newest = None
            self.unpaired_in_a_row = 0

    def _match(self) -> None:
        for i in reversed(range(len(self._colors))):
            stamp, color, arrived = self._colors[i]
            gaps = [abs(stamp - other) for other, _ in self._depths]
            if gaps and min(gaps) <= self.tolerance:
                j = gaps.index(min(gaps))
                self._offer(Pair(color, self._depths[j][1], arrived))
                self._dropped['no depth image fits'] += i
                self.unpaired_in_a_row = len(self._colors) - i - 1
                for _ in range(i + 1):
                    self._colors.popleft()
                for _ in range(j + 1):
                    self._depths.popleft()
                return

    def _offer(self, pair: Pair) -> None:
        if self._newest is not None:
            self._dropped['busy with an earlier picture'] += 1
        self._newest = pair
        self._changed.notify()
