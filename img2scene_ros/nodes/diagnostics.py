# SPDX-License-Identifier: Apache-2.0
"""What is wrong now: said once in the log, and shown in /diagnostics while it lasts."""

import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
from rclpy.impl.rcutils_logger import RcutilsLogger
from std_msgs.msg import Header

REPEAT = 30.0  # seconds before the same sentence is logged again


class Problems:
    """
    The present problem of every part of the node; safe to use from several threads.

    :param logger: where a new problem is written, in one line
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self._present: dict[str, str] = {}
        self._logged: dict[str, float] = {}
        self._announced: set[str] = set()
        self._lock = Lock()

    def report(self, part: str, sentence: str) -> None:
        """Note what is wrong with a part of the node."""
        with self._lock:
            now = monotonic()
            self._present[part] = sentence
            self._logged = {
                known: when for known, when in self._logged.items() if now - when < REPEAT}
            if sentence not in self._logged:
                self._logged[sentence] = now
                self._announced.add(part)
                self._logger.warning(sentence)

    def solved(self, part: str) -> None:
        """Note that a part of the node works."""
        with self._lock:
            self._present.pop(part, None)
            if part in self._announced:
                self._announced.remove(part)
                self._logger.info(f'{part}: works again')

    def clear(self) -> None:
        """Forget all problems, so that they are worth a line again."""
        with self._lock:
            self._present.clear()
            self._logged.clear()
            self._announced.clear()

    @property
    def present(self) -> dict[str, str]:
        """Return the present problems by part."""
        with self._lock:
            return dict(self._present)


def diagnostics(
    header: Header, name: str, state: str, problems: list[str], values: Mapping[str, object],
) -> DiagnosticArray:
    """
    Make the node's diagnostics.

    :param name: the node's full name
    :param state: of the life cycle
    :param problems: what is wrong now, the worst first
    :param values: what else is known
    """
    level = DiagnosticStatus.WARN if problems else DiagnosticStatus.OK
    status = DiagnosticStatus(
        level=level, name=f'{name}: scene', hardware_id='img2scene',
        message='; '.join(problems) or state)
    status.values = [
        KeyValue(key=key, value=str(value)) for key, value in {'state': state, **values}.items()]
    return DiagnosticArray(header=header, status=[status])


def resident_memory() -> float | None:
    """Return the memory this process occupies, in megabytes; None where /proc does not say."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6
