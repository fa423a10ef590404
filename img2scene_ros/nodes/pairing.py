# SPDX-License-Identifier: Apache-2.0
"""Pictures with the depth image and the mask of the same moment, of which the newest is taken."""

from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from threading import Condition
from time import monotonic
from typing import Any

KINDS = ('depth', 'mask')  # what belongs to a picture
UNPAIRED = 'no depth image or mask fits'
POLL = 0.01  # seconds between two looks whether a pair is ready
# Images that wait for their partners, for TF, or for what another node finds in them: 2 s at
# 30 Hz, and less where so many are large.
MOST = 60
MOST_BYTES = 256_000_000


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

    @property
    def size(self) -> int:
        """Return how many bytes its images have."""
        return size(self.color) + size(self.depth) + size(self.mask)


@dataclass(frozen=True)
class _Picture:
    """A picture that waits for what belongs to it, its partners, by kind."""

    stamp: float
    message: Any
    partners: frozenset[str]
    arrived: float


class Pairing:
    """
    A buffer between the callbacks that fill it and the worker that takes the newest that is ready.

    Stamps are only compared with each other, in order of arrival, so that a bag that loops or a
    simulation that starts again pairs like any other stream. A camera may send its depth images
    some pictures late, so messages of each kind wait for their partner.

    - is_ready: tells whether a pair can be used now, such as when TF knows its camera
    - tolerance: greatest difference of the stamps of a pair, seconds
    """

    def __init__(self, tolerance: float = 0.02) -> None:
        self.is_ready: Callable[[Pair], bool] = lambda _: True
        self.tolerance = tolerance
        self._dropped: Counter[str] = Counter()
        self._unpaired_since: float | None = None
        self._pictures: deque[_Picture] = deque()
        self._others: dict[str, deque[tuple[float, Any]]] = {kind: deque() for kind in KINDS}
        self._pairs: deque[Pair] = deque()
        self._changed = Condition()

    def add_color(self, stamp: float, message: Any, partners: Collection[str]) -> None:
        """
        Take a picture.

        :param stamp: seconds
        :param partners: of `KINDS`, what it waits for
        """
        with self._changed:
            now = monotonic()
            self._unpaired_since = self._unpaired_since or now
            self._pictures.append(_Picture(stamp, message, frozenset(partners), now))
            self._match()
            self._drop_oldest(
                self._pictures, too_many([size(one.message) for one in self._pictures]), UNPAIRED)

    def add(self, kind: str, stamp: float, message: Any) -> None:
        """Take what belongs to a picture, one of `KINDS`; the stamp is in seconds."""
        with self._changed:
            others = self._others[kind]
            others.append((stamp, message))
            for _ in range(too_many([size(one) for _, one in others])):
                others.popleft()
            self._match()

    def wait_only_for(self, partners: Collection[str]) -> None:
        """Let the pictures there are no longer wait for others: they will not come."""
        with self._changed:
            for i, one in enumerate(self._pictures):
                self._pictures[i] = replace(one, partners=one.partners.intersection(partners))
            self._match()

    def take(self, timeout: float) -> Pair | None:
        """Wait for a pair that is ready and take it; None after the timeout, in seconds."""
        end = monotonic() + timeout
        with self._changed:
            while not self._has_ready():
                left = end - monotonic()
                if left <= 0.0:
                    return None
                self._changed.wait(min(left, POLL) if self._pairs else left)
            return self._pairs.popleft()

    def drop(self, reason: str) -> None:
        """Count a pair that was taken but cannot be used."""
        with self._changed:
            self._dropped[reason] += 1

    @property
    def unpaired_for(self) -> float:
        """Return for how many seconds pictures have come that find no partners."""
        with self._changed:
            since, waiting = self._unpaired_since, self._pictures
            return waiting[-1].arrived - since if since and waiting else 0.0

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
            self._pairs.clear()
            self._unpaired_since = None

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
            self._unpaired_since = None
            self._drop_oldest(self._pictures, i, UNPAIRED)
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
        self._pairs.append(pair)
        if not self._has_ready():
            sizes = [pair.size for pair in self._pairs]
            self._drop_oldest(self._pairs, too_many(sizes), 'too many wait for TF')
        self._changed.notify()

    def _has_ready(self) -> bool:
        """Tell whether a pair is ready; the newest that is comes first then."""
        for i in reversed(range(len(self._pairs))):
            if self.is_ready(self._pairs[i]):
                self._drop_oldest(self._pairs, i, 'busy with an earlier picture')
                return True
        return False

    def _drop_oldest(self, waiting: deque[Any], count: int, reason: str) -> None:
        self._dropped[reason] += count
        for _ in range(count):
            waiting.popleft()


def too_many(sizes: Sequence[int]) -> int:
    """Return how many of the oldest messages, of so many bytes, are more than can wait."""
    count = max(len(sizes) - MOST, 0)
    while count < len(sizes) - 1 and sum(sizes[count:]) > MOST_BYTES:
        count += 1
    return count


def size(message: Any) -> int:
    """Return how many bytes an image has; other messages are small."""
    return len(getattr(message, 'data', ()))
