# SPDX-License-Identifier: Apache-2.0
"""What is wrong now: said once in the log, and shown in /diagnostics while it lasts."""

import os
import re
import traceback
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node
from std_msgs.msg import Header

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import unexpected

TICK = 1.0  # seconds between two diagnostics
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
            kind = re.sub(r'[\d.]+', '', sentence)  # a stamp or a size makes it no other
            if kind not in self._logged:
                self._logged[kind] = now
                self._announced.add(part)
                self._logger.warning(sentence)

    def solved(self, part: str) -> None:
        """Note that a part of the node works."""
        with self._lock:
            self._present.pop(part, None)
            if part in self._announced:
                self._announced.remove(part)
                self._logger.info(f'{part}: works again')

    def update(self, part: str, sentence: str) -> None:
        """Note what is wrong with a part of the node; '' when it works."""
        if sentence:
            self.report(part, sentence)
        else:
            self.solved(part)

    def survives(self, part: str, step: Callable[[], None]) -> bool:
        """Do a step of a part of the node; report what it raises, and tell whether it was done."""
        try:
            step()
            return True
        except Img2SceneError as error:
            self.report(part, str(error))
        except Exception as error:
            self.report(
                part, f'{part}: {unexpected(error)}; please report this with the debug log '
                '(log_level:=debug)')
            self._logger.debug(traceback.format_exc())
        return False

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


class Diagnostics:
    """Publishes how a node is, on /diagnostics."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def publish(self, state: str, problems: list[str], values: Mapping[str, object]) -> None:
        """
        Publish.

        :param state: of the life cycle
        :param problems: what is wrong now, the worst first
        :param values: what else is known
        """
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if problems else DiagnosticStatus.OK,
            name=f'{self._node.get_fully_qualified_name()}: scene', hardware_id='img2scene',
            message='; '.join(problems) or state)
        status.values = [KeyValue(key=key, value=str(value))
                         for key, value in {'state': state, **values}.items()]
        self._publisher.publish(DiagnosticArray(
            header=Header(stamp=self._node.get_clock().now().to_msg()), status=[status]))


def resident_memory() -> float | None:
    """Return the memory this process occupies, in megabytes; None where /proc does not say."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6
