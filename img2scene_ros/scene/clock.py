# SPDX-License-Identifier: Apache-2.0
"""Seconds by the stamps of frames."""

_UNKNOWN = 0.1  # seconds between frames whose stamps do not tell: none at all, or going back


class StampClock:
    """
    Goes by the stamps of frames, so that how long they take to be processed changes nothing.

    - now: seconds since the first frame
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._latest = 0

    def advance(self, stamp_ns: int) -> float:
        """
        Go on to the next frame.

        :param stamp_ns: 0 where the frame has none; it goes back where a recording starts again
        :return: seconds since the frame before, more than 0
        """
        step = (stamp_ns - self._latest) * 1e-9 if self._latest and stamp_ns else 0.0
        step = step if step > 0.0 else _UNKNOWN
        self._latest = stamp_ns or self._latest
        self.now += step
        return step
