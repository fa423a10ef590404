# SPDX-License-Identifier: Apache-2.0
"""Pictures with the depth image and the mask of the same moment; only the newest is kept."""

from collections import Counter
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import replace
from threading import Condition
from time import monotonic
from typing import Any

KINDS = ('depth', 'mask')  # what belongs to a picture
WAITING = 10  # messages of each kind that wait for their partner
UNPAIRED = 'no depth image or mask fits'


@dataclass(frozen=True)
class Pair:
    """
    A picture's message with those of the same moment.

    - color: the picture
    - depth: the depth image; None when there is no depth sensor
    - arrived: when the picture came, seconds of the monotonic clock
    - mask: of the robot; None when nobody publishes one
    """

    color: Any
    depth: Any | None
    arrived: float
    mask: Any | None = None


@dataclass(frozen=True)
class _Picture:
    """A picture that waits for what belongs to it, its partners, by kind."""

    stamp: float
    message: Any
    partners: frozenset[str]
    arrived: float


class Pairing:
    """
    A one-slot buffer between the callbacks that fill it and the worker that empties it.

    Stamps are only compared with each other, in order of arrival, so that a bag that loops or a
    simulation that starts again pairs like any other stream. A camera may send its depth images
    some pictures late, so a few messages of each kind wait for their partner.

    - tolerance: greatest difference of the stamps of a pair, seconds
    - unpaired_in_a_row: pictures since the latest pair
    """

    def __init__(self, tolerance: float = 0.02) -> None:
        self.tolerance = tolerance
        self._dropped: Counter[str] = Counter()
        self.unpaired_in_a_row = 0
        self._pictures: deque[_Picture] = deque(maxlen=WAITING)
        self._others: dict[str, deque[tuple[float, Any]]] = {
            kind: deque(maxlen=WAITING) for kind in KINDS}
        self._newest: Pair | None = None
        self._changed = Condition()

    def add_color(self, stamp: float, message: Any, partners: Collection[str]) -> None:
        """
        Take a picture.

        :param stamp: seconds
        :param partners: of `KINDS`, what it waits for
        """
        with self._changed:
            self._dropped[UNPAIRED] += len(self._pictures) == self._pictures.maxlen
            self.unpaired_in_a_row += 1
            self._pictures.append(_Picture(stamp, message, frozenset(partners), monotonic()))
            self._match()

    def add(self, kind: str, stamp: float, message: Any) -> None:
        """Take what belongs to a picture, one of `KINDS`; the stamp is in seconds."""
        with self._changed:
            self._others[kind].append((stamp, message))
            self._match()

    def wait_only_for(self, partners: Collection[str]) -> None:
        """Let the pictures there are no longer wait for others: they will not come."""
        with self._changed:
            for i, one in enumerate(self._pictures):
                self._pictures[i] = replace(one, partners=one.partners.intersection(partners))
            self._match()

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
            return dict(+self._dropped)  # those above 0

    def clear(self) -> None:
        """Forget all messages."""
        with self._changed:
            self._pictures.clear()
            for messages in self._others.values():
                messages.clear()
            self._newest = None
            self.unpaired_in_a_row = 0

    def _match(self) -> None:
        """Offer the newest picture that has all its partners; older ones are too late then."""
        for i in reversed(range(len(self._pictures))):
            picture = self._pictures[i]
            found = {kind: j for kind in picture.partners
                     if (j := self._nearest(kind, picture.stamp)) is not None}
            if len(found) < len(picture.partners):
                continue
            messages = {kind: self._taken(kind, j) for kind, j in found.items()}
            self._offer(Pair(picture.message, messages.get('depth'), picture.arrived,
                             messages.get('mask')))
            self.unpaired_in_a_row = len(self._pictures) - i - 1
            self._dropped[UNPAIRED] += i
            for _ in range(i + 1):
                self._pictures.popleft()
            return

    def _nearest(self, kind: str, stamp: float) -> int | None:
        """Return which message of a kind is of a stamp; None where none is."""
        gaps = [abs(stamp - other) for other, _ in self._others[kind]]
        return gaps.index(min(gaps)) if gaps and min(gaps) <= self.tolerance else None

    def _taken(self, kind: str, place: int) -> Any:
        """Return a message of a kind; those before it are of no use any more."""
        for _ in range(place):
            self._others[kind].popleft()
        return self._others[kind].popleft()[1]

    def _offer(self, pair: Pair) -> None:
        if self._newest is not None:
            self._dropped['busy with an earlier picture'] += 1
        self._newest = pair
        self._changed.notify()
