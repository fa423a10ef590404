# SPDX-License-Identifier: Apache-2.0
"""Slow transitions of a life-cycle node beside its executor, and refusals of impossible ones."""

from collections.abc import Callable
from threading import Thread
from typing import Any
from typing import TypeVar

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future

# Transitions that load models, or wait until nothing uses them any more.
SLOW = {Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP}
SLOW_LABELS = {'configure', 'cleanup'}

Result = TypeVar('Result')


async def aside(action: Callable[[], Result]) -> Result:
    """Do something slow on a thread of its own; the executor goes on meanwhile."""
    done = Future()

    def work() -> None:
        try:
            done.set_result(action())
        except Exception as error:
            done.set_exception(error)

    Thread(target=work, daemon=True).start()
    return await done


def change_state_aside(node: LifecycleNode) -> None:
    """
    Serve a node's slow transitions beside the executor, and refuse impossible ones.

    Up to Jazzy rclpy leaves the client of those without an answer (ros2/rclpy#1319).
    """
    service: Any = node._service_change_state
    change_state = service.callback

    async def answer(
        request: ChangeState.Request, response: ChangeState.Response,
    ) -> ChangeState.Response:
        wanted = request.transition
        try:
            if wanted.label in SLOW_LABELS or not wanted.label and wanted.id in SLOW:
                return await aside(lambda: change_state(request, response))
            return change_state(request, response)
        except rclpy_implementation.RCLError:
            state = node._state_machine.current_state[1]
            node.get_logger().warning(f'refused transition {wanted.id}: the node is {state}')
            response.success = False
            return response

    service.callback = answer
    service.callback_group = MutuallyExclusiveCallbackGroup()  # get_state answers meanwhile
    service.callback_group.add_entity(service)
