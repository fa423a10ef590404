"""What is wrong now: said once in the log, and shown in /diagnostics while it lasts."""

from threading import Lock
from time import monotonic

from rclpy.impl.rcutils_logger import RcutilsLogger

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
