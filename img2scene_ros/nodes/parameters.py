# SPDX-License-Identifier: Apache-2.0
"""Between Options dataclasses and ROS parameters: one parameter per option, declared once."""

import re
import sys
from array import array
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import Field
from dataclasses import dataclass
from dataclasses import fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any
from typing import Generic
from typing import TypeVar

import yaml
from rcl_interfaces.msg import FloatingPointRange
from rcl_interfaces.msg import IntegerRange
from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.exceptions import InvalidParameterValueException
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import OptionError
from img2scene_ros.options import Options
from img2scene_ros.options import is_numbers
from img2scene_ros.registry import backends

Kind = TypeVar('Kind', bound=Options)

_TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    tuple: Parameter.Type.STRING_ARRAY,
}


@dataclass(frozen=True)
class ParameterGroup(Generic[Kind]):
    """
    The options of one class as parameters of a node.

    - options: the class
    - prefix: put before every option's name, such as 'tabletop.'
    """

    options: type[Kind]
    prefix: str = ''

    @property
    def names(self) -> dict[str, str]:
        """Return the options' names by parameter name."""
        return {self.prefix + declared.name: declared.name for declared in fields(self.options)}

    def declare(self, node: Node) -> dict[str, str]:
        """
        Declare one parameter per option, with its description, range and choices.

        A start-up value that is not allowed is skipped: the parameter gets its default, and the
        value is reported.

        :return: what was wrong with start-up values, one sentence by parameter name
        """
        wrong = {}
        for declared in fields(self.options):
            name = self.prefix + declared.name
            try:
                _declare(node, name, declared)
                self.options(**{declared.name: _plain(node.get_parameter(name).value)})
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                reason = str(error).removesuffix(f': {name}')
                if type(declared.default) is float and 'INTEGER' in reason:
                    reason += ' (numbers need a decimal point: 5.0)'
                wrong[name] = f"the parameter '{name}' has a bad start-up value: {reason}"
                _declare(node, name, declared, ignore_override=True)
            except OptionError as error:
                wrong[name] = self._naming_parameter(error)
                node.undeclare_parameter(name)
                _declare(node, name, declared, ignore_override=True)
        return wrong

    def read(self, node: Node, changes: Mapping[str, Any] | None = None) -> Kind:
        """
        Build the options from the parameters' values.

        :param changes: values that take the place of the node's, by parameter name
        :raises OptionError: a value that is not allowed; the sentence names the parameter
        """
        values = {
            option: _plain((changes or {}).get(name, node.get_parameter(name).value))
            for name, option in self.names.items()}
        try:
            return self.options(**values)
        except OptionError as error:
            raise OptionError(self._naming_parameter(error)) from error

    def check_changeable(self, node: Node, changes: Mapping[str, Any]) -> None:
        """
        Refuse changes of read-only options.

        :raises OptionError: there are some; the sentence says what to do
        """
        old, new = self.read(node), self.read(node, changes)
        for declared in fields(self.options):
            is_same = getattr(old, declared.name) == getattr(new, declared.name)
            if declared.metadata['read_only'] and not is_same:
                when = 'at the start of the node; start it again'
                if isinstance(node, LifecycleNode):
                    when = ('while the node is unconfigured; deactivate it and clean it up first '
                            '(ros2 lifecycle set)')
                raise OptionError(
                    f"parameter '{self.prefix}{declared.name}' only changes {when}")

    def _naming_parameter(self, error: OptionError) -> str:
        return str(error).replace("option '", f"parameter '{self.prefix}", 1)


def declare(node: Node, groups: Iterable[ParameterGroup[Any]]) -> dict[str, str]:
    """
    Declare all parameters of a node; warn of start-up values for others, which are misspelt.

    :return: what was wrong with start-up values, one sentence by parameter name
    """
    wrong: dict[str, str] = {}
    for group in groups:
        wrong |= group.declare(node)
    _warn_of_unknown(node)
    for flag, path in pairwise(sys.argv):
        if flag == '--params-file':
            _warn_of_others(node, Path(path))
    return wrong


def declare_or_refuse(node: Node, *groups: ParameterGroup[Any]) -> None:
    """
    Declare all parameters of a node that cannot start with wrong ones.

    :raises OptionError: start-up values that are not allowed
    """
    if wrong := declare(node, groups):
        raise OptionError('; '.join(wrong.values()))


def on_change(node: Node, change: Callable[[dict[str, Any]], None]) -> None:
    """
    Have a node asked when parameters are set, once all are declared.

    :param change: takes the new values by name; an Img2SceneError of its refuses them
    """
    def answer(parameters: list[Parameter]) -> SetParametersResult:
        try:
            change({parameter.name: _plain(parameter.value) for parameter in parameters})
        except Img2SceneError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(answer)


def _warn_of_unknown(node: Node) -> None:
    for name in sorted(node._parameter_overrides):  # rclpy has no other way to ask
        if node.has_parameter(name) or name.startswith('qos_overrides.'):
            continue
        near = get_close_matches(name, node._parameters, 1)
        node.get_logger().warning(
            f"there is no parameter '{name}', so its value is not used; " + (
                f"did you mean '{near[0]}'?" if near else
                f'`ros2 param list {node.get_fully_qualified_name()}` lists them all'))


def _warn_of_others(node: Node, path: Path) -> None:
    """Warn of a parameter file that is for nodes of other names alone, which ROS passes over."""
    name = node.get_fully_qualified_name()
    sections = list(_sections(yaml.safe_load(path.read_text())))
    # ** stands for any number of names and * for one (rcl_yaml_param_parser).
    patterns = [
        section.replace('/**', r'(/\w+)*').replace('/*', r'/\w+') for section in sections]
    if sections and not any(re.fullmatch(pattern, name) for pattern in patterns):
        node.get_logger().warning(
            f"'{path}' has no parameters for the node '{name}', only for {', '.join(sections)}; "
            'write /** in its place, which is any node')


def _sections(tree: Any, namespace: str = '') -> Iterator[str]:
    """Yield the names of nodes in a parameter file, as far as it is one."""
    for name, inner in tree.items() if isinstance(tree, dict) else ():
        path = f"{namespace}/{str(name).strip('/')}"
        if isinstance(inner, dict) and 'ros__parameters' in inner:
            yield path
        else:
            yield from _sections(inner, path)


def _plain(value: Any) -> Any:
    """
    Return a value of a parameter in Python's own types; '' is no element of a list.

    `ros2 param set NODE NAME "['']"` empties a list: it takes [] for a list of booleans.
    """
    if isinstance(value, array):
        return value.tolist()
    return [one for one in value if one != ''] if isinstance(value, (list, tuple)) else value


def _declare(node: Node, name: str, declared: Field[Any], ignore_override: bool = False) -> None:
    # By type and not by value: rclpy takes an empty list for an array of bytes.
    kind = (Parameter.Type.DOUBLE_ARRAY if is_numbers(declared.default)
            else _TYPES[type(declared.default)])
    node.declare_parameter(name, kind, _descriptor(declared), ignore_override)
    if node.get_parameter_or(name).type_ == Parameter.Type.NOT_SET:
        node.set_parameters([Parameter(name, kind, declared.default)])


def _descriptor(declared: Field[Any]) -> ParameterDescriptor:
    low, high = declared.metadata['low'], declared.metadata['high']
    descriptor = ParameterDescriptor(description=declared.metadata['description'])
    rules = constraints(declared)
    if declared.metadata['read_only']:
        # Not ROS's read_only: a bad start-up value could then never be fixed.
        rules.append('changed only while the node is unconfigured')
    descriptor.additional_constraints = '; '.join(rules)
    if low is not None and high is not None:
        if type(declared.default) is float:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor


def constraints(declared: Field[Any]) -> list[str]:
    """Return what an option's value must be, beside its type and a range with two ends."""
    rules = declared.metadata
    found = []
    if rules['low'] is not None and rules['high'] is None:
        found.append(f"at least {rules['low']}")
    if rules['high'] is not None and rules['low'] is None:
        found.append(f"at most {rules['high']}")
    if rules['choices']:
        found.append('one of ' + ', '.join(rules['choices']))
    if rules['group']:
        found.append(f"{rules['group']}: {', '.join(sorted(backends(rules['group'])))}")
    return found
