# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the headers of pictures, though the pictures are fine."""

from time import monotonic

from std_msgs.msg import Header

from img2scene_ros.nodes.messages import nanoseconds

AHEAD = 1.0  # seconds a stamp may be ahead; clocks on two machines agree to milliseconds
OLD = 10.0  # seconds; tf2 and RViz remember no more (tf2::BUFFER_CORE_DEFAULT_CACHE_TIME)
REMEMBERED = 10.0  # seconds for which a change of frame_id is said


class Headers:
    """Looks at the headers of one topic; callbacks show them, another thread may ask."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._stamp = ''
        self._changed = ''
        self._changed_at = 0.0
        self.frame_id: str | None = None  # of the latest

    def see(self, header: Header, now_ns: int) -> None:
        """Take in one more header; `now_ns` is the node's time, 0 before a simulation has one."""
        self._stamp = self._about_stamp(nanoseconds(header.stamp), now_ns)
        if self.frame_id not in (None, header.frame_id):
            self._changed_at = monotonic()
            self._changed = (
                f"the frame_id of '{self._topic}' changes (from '{self.frame_id}' to "
                f"'{header.frame_id}'); check that only one camera publishes it")
        self.frame_id = header.frame_id

    def problems(self) -> list[str]:
        """Return a sentence for everything that is wrong now."""
        found = [self._stamp]
        if self.frame_id == '':
            found.append(
                f"the frame_id of '{self._topic}' is empty, so that nothing shows where objects "
                "are; set the camera's optical frame in the driver")
        if monotonic() - self._changed_at < REMEMBERED:
            found.append(self._changed)
        return [sentence for sentence in found if sentence]

    def _about_stamp(self, stamp_ns: int, now_ns: int) -> str:
        if stamp_ns == 0:
            return (f"the stamps of '{self._topic}' are 0, so that neither depth images nor TF "
                    'can be told apart by time; set them in the driver')
        age = (now_ns - stamp_ns) * 1e-9 if now_ns else 0.0
        if age < -AHEAD:
            return (f"the stamps of '{self._topic}' are {_rough(-age)} ahead of this node's "
                    'clock; synchronize the clocks of the machines (chrony), or check '
                    'use_sim_time on both sides')
        if age > OLD:
            return (f"the stamps of '{self._topic}' are {_rough(age)} old; for recordings use "
                    '`ros2 bag play --clock` and use_sim_time:=true, else synchronize the clocks '
                    'of the machines (chrony)')
        return ''


def _rough(seconds: float) -> str:
    """Return the unit that a duration counts, which stays the same sentence for a while."""
    units = {'years': 3.2e7, 'days': 172800.0, 'hours': 7200.0, 'minutes': 120.0}
    return next((name for name, least in units.items() if seconds >= least), 'seconds')
