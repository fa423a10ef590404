"""What the scene node says about itself in /diagnostics."""

import os
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
from std_msgs.msg import Header


def diagnostics(
    header: Header, name: str, state: str, problems: list[str], values: dict[str, object],
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
