# SPDX-License-Identifier: Apache-2.0
"""
Which name an object has: what detectors say of it, held against its measured size, over time.

One sighting: the scores of a detector are the probabilities of each name for itself, so the odds
s / (1 - s) of a name, times how its size suits it (`localization/extents.py`), stand against each
other and against `object`, which is whatever has none of the names.

Many sightings: frames of one camera err alike, so they do not multiply. Their probabilities are
averaged (the linear opinion pool, Stone, Annals of Mathematical Statistics 1961).
"""

from dataclasses import dataclass
from dataclasses import field

from img2scene_ros.localization.extents import measured_extents
from img2scene_ros.localization.extents import size_ratio
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Sighting

# The score at which a name that its size suits is as probable as none; that of a detector's own
# choice where it puts out less sure ones.
_EVEN_SCORE = 0.3
# What a sighting without a name, or with none that suits, counts beside one with a name.
_NO_NAME_WEIGHT = 0.25
_MEMORY = 30.0  # sightings that are remembered: an object that is changed gets its new name
_CLEARLY = 1.5  # a new name is this many times more probable than the one shown
_MOST, _LEAST = 5, 0.01  # hypotheses that are put out


def names_of(sighting: Sighting) -> dict[str, float]:
    """Return the probabilities of an object's names, `object` among them; their sum is 1."""
    detection = sighting.detection
    scores = dict(detection.hypotheses) or {detection.label: detection.score}
    scores.pop(UNNAMED, None)
    if not scores:
        return {UNNAMED: 1.0}
    extents = measured_extents(sighting)
    odds = {name: _odds(score) * size_ratio(extents, name) for name, score in scores.items()}
    odds[UNNAMED] = _odds(min(_EVEN_SCORE, scores.get(detection.label, _EVEN_SCORE)))
    total = sum(odds.values())
    return {name: value / total for name, value in odds.items()}


@dataclass
class NameEvidence:
    """
    What the sightings of one object say of its name so far.

    - label: the most probable name; it stays until another is clearly more probable
    """

    label: str = ''
    _sums: dict[str, float] = field(default_factory=dict)

    def add(self, sighting: Sighting) -> None:
        """Take in one more sighting."""
        names = names_of(sighting)
        is_named = max(names, key=names.get) != UNNAMED
        weight = 1.0 if is_named else _NO_NAME_WEIGHT
        kept = min(1.0, (_MEMORY - weight) / (sum(self._sums.values()) or 1.0))
        self._sums = {name: kept * self._sums.get(name, 0.0) + weight * names.get(name, 0.0)
                      for name in {**self._sums, **names}}
        best = max(self._sums, key=self._sums.get)
        if not self.label or self._sums[best] > _CLEARLY * self._sums[self.label]:
            self.label = best

    @property
    def hypotheses(self) -> tuple[tuple[str, float], ...]:
        """Return the names and their probabilities, the label first, then by probability."""
        total = sum(self._sums.values())
        shares = {name: value / total for name, value in self._sums.items()}
        ranked = sorted(shares, key=lambda name: (name == self.label, shares[name]), reverse=True)
        return tuple((name, shares[name]) for name in ranked[:_MOST]
                     if name == self.label or shares[name] >= _LEAST)


def _odds(score: float) -> float:
    score = min(max(score, 1e-4), 1.0 - 1e-4)
    return score / (1.0 - score)
