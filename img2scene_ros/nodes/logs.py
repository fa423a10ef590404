# SPDX-License-Identifier: Apache-2.0
"""Python's logging on its way into ROS: the console, the log files and /rosout."""

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

CHATTY = ('httpx',)  # libraries that tell every request of theirs at INFO


def forward_logging(logger: RcutilsLogger) -> None:
    """
    Hand what Python's `logging` takes, of this package and of all others, to a node's logger.

    The node's log level decides what is shown; DEBUG of other packages is never.
    """
    logging.basicConfig(
        handlers=[RosHandler(logger)], format='%(message)s', level=logging.INFO, force=True)
    logging.getLogger('img2scene_ros').setLevel(logging.DEBUG)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


class RosHandler(logging.Handler):
    """Writes records with a node's logger."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, as far as it can be put into words."""
        try:
            self._write(record.levelno, self.format(record))
        except Exception:
            self.handleError(record)

    def _write(self, level: int, text: str) -> None:
        # rclpy wants a call of its own for every severity.
        if level >= logging.CRITICAL:
            self._logger.fatal(text)
        elif level >= logging.ERROR:
            self._logger.error(text)
        elif level >= logging.WARNING:
            self._logger.warning(text)
        elif level >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
