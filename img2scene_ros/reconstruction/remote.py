# SPDX-License-Identifier: Apache-2.0
"""
A mesh from a server: a Gradio Space, or any HTTP endpoint that answers a picture with a GLB.

    cut-out, transparent PNG -> server -> GLB, checked -> closed mesh -> placed by what is seen

Off until `remote.url` is set, because pictures leave the machine. A server is not trusted: its
answer is bounded in time and size, and nothing that it names is fetched from anywhere else.

Gradio is spoken as https://www.gradio.app/guides/querying-gradio-apps-with-curl describes it
(Gradio 4 and later): four requests, which gradio_client, whose downloads and event streams have
no limits, would not make simpler.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic
from time import sleep
from typing import TYPE_CHECKING
from typing import Any
from urllib.parse import quote
from urllib.parse import urlsplit

from img2scene_ros.errors import OptionError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.errors import naming
from img2scene_ros.hub import first_line
from img2scene_ros.hub import within
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.packages import require_packages
from img2scene_ros.reconstruction.cutout import cut_out
from img2scene_ros.reconstruction.cutout import png
from img2scene_ros.reconstruction.generated import FRONTS
from img2scene_ros.reconstruction.generated import placed_upright
from img2scene_ros.reconstruction.generated import read_glb
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting

if TYPE_CHECKING:
    from requests import Session

_LOGGER = logging.getLogger(__name__)
PICTURE_SIZE = 512  # pixels of the side of what is sent
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may pass
_TALK = 4_000_000  # bytes of an answer that is no mesh


@dataclass(frozen=True)
class RemoteOptions(Options):
    """Which server `remote` asks, what for, and how long it waits."""

    url: str = option(
        '', 'Server that pictures of objects are sent to, https://...; empty is off',
        read_only=True)
    kind: str = option(
        'gradio', 'gradio: an app or Space made with Gradio 4 or later; http: one POST of a form '
        'with the PNG file image and the fields guidance_scale and inference_steps, answered with '
        'a GLB', choices=('gradio', 'http'), read_only=True)
    api_name: str = option(
        '/generate_mesh', "Gradio's name of the function, as its page 'Use via API' lists it")
    arguments: tuple[str, ...] = option(
        ('image', 'guidance_scale', 'inference_steps'), 'What that function takes, in its order: '
        'image, guidance_scale, inference_steps, or a value in JSON')
    guidance_scale: float = option(
        3.0, 'How closely a diffusion model keeps to the picture', low=0.0, high=30.0)
    inference_steps: int = option(75, 'Steps of a diffusion model', low=5, high=200)
    front: str = option(
        '+z', "The answer's axis that points to the camera (up is +y, as in all glTF); any tries "
        'twelve turns about +y and takes what fits the mask best', choices=(*FRONTS, 'any'))
    up: str = option(
        'picture', "picture: the answer's +y is up in the picture; gravity: it is up in the world",
        choices=('picture', 'gravity'))
    connect_timeout: float = option(5.0, 'Wait for a connection [s]', low=0.1, high=60.0)
    timeout: float = option(
        600.0, 'Wait for an object, all attempts together [s]', low=0.5, high=3600.0)
    retries: int = option(
        2, 'Further attempts when the server fails or is busy, after 1 s, 2 s, 4 s, ...', low=0,
        high=10)
    max_megabytes: float = option(64.0, 'Largest answer', low=0.1, high=2000.0)
    max_triangles: int = option(20000, 'Greatest number of triangles of a mesh', low=200,
                                high=1000000)
    token_variable: str = option(
        'IMG2SCENE_REMOTE_TOKEN', 'Environment variable that holds a bearer token, if the server '
        'wants one', read_only=True)


class _TryAgain(ReconstructionError):
    """What may pass when it is tried again."""


class RemoteReconstructor:
    """
    Asks a server what a cut-out shows.

    :raises OptionError: no server is set, or none that can be
    :raises MissingDependencyError: requests is not installed
    """

    Options = RemoteOptions

    def __init__(self, options: RemoteOptions = RemoteOptions()) -> None:
        if not options.url:
            raise OptionError(
                "the reconstructor 'remote' is off, because it sends pictures to a server; set "
                'remote.url to the server that may see them')
        self._host = _host(options.url)
        require_packages(
            "the reconstructor 'remote'", ('requests',), "use 'voxel', which needs no server")
        self._token = os.environ.get(options.token_variable, '') if options.token_variable else ''
        self.options = options
        _warn(self._host, options.url.startswith('https:'))

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """
        Rebuild one object.

        :raises ReconstructionError: too little is seen of it, or the server gives no usable mesh
        """
        crop = cut_out(sighting, 'remote', PICTURE_SIZE)
        with naming(f"the server '{self._host}'"):
            data = self._answer(png(crop))
            solid = read_glb(data).solid(self.options.max_triangles)
        return placed_upright(
            solid, sighting, 'remote', crop.view, self.options.front, self.options.up)

    def _answer(self, picture: bytes) -> bytes:
        """Ask until there is an answer, no attempt or no time is left."""
        from requests import Session

        deadline = monotonic() + self.options.timeout
        for attempt in range(self.options.retries + 1):
            try:
                with Session() as session:
                    return _Talk(self.options, self._token, deadline, session).ask(picture)
            except _TryAgain as error:
                pause = 2.0 ** attempt
                if attempt == self.options.retries or monotonic() + pause > deadline:
                    raise
                _LOGGER.info('%s: %s; asking again in %.0f s', self._host, error, pause)
                sleep(pause)
        raise AssertionError('unreachable')


class _Talk:
    """
    One attempt.

    :param deadline: when it must be over, by `monotonic`
    """

    def __init__(
        self, options: RemoteOptions, token: str, deadline: float, session: 'Session',
    ) -> None:
        self.options, self.deadline, self._session = options, deadline, session
        self._most = int(1e6 * options.max_megabytes)
        self._url = options.url.rstrip('/')
        self._headers = {'Accept-Encoding': 'identity'}
        if token:
            self._headers['Authorization'] = f'Bearer {token}'

    def ask(self, picture: bytes) -> bytes:
        """Send a picture, return a GLB, or whatever was answered instead."""
        if self.options.kind == 'gradio':
            return self._ask_gradio(picture)
        fields = {name: f'{getattr(self.options, name):g}'
                  for name in ('guidance_scale', 'inference_steps')}
        return self._fetch('POST', self.options.url, self._most, data=fields,
                           files={'image': ('object.png', picture, 'image/png')})

    def _ask_gradio(self, picture: bytes) -> bytes:
        """Upload the picture, call the function, wait for its events, download the mesh."""
        config = _json(self._fetch('GET', f'{self._url}/config', 4 * _TALK))
        if not isinstance(config, dict) or 'version' not in config:
            raise ReconstructionError('it is no Gradio app; check remote.url and remote.kind')
        if str(config['version']).split('.')[0] in ('1', '2', '3'):
            raise ReconstructionError(
                f"it is made with Gradio {str(config['version'])[:20]}, which has no HTTP "
                'interface of this kind; 4 or later is needed')
        api = self._url + str(config.get('api_prefix') or '')
        upload = _json(self._fetch(
            'POST', f'{api}/upload', _TALK,
            files={'files': ('object.png', picture, 'image/png')}))
        if not isinstance(upload, list) or not upload or not isinstance(upload[0], str):
            raise ReconstructionError('it did not take the picture')
        call = f"{api}/call/{quote(self.options.api_name.strip('/'))}"
        event = _json(self._fetch(
            'POST', call, _TALK, json={'data': self._arguments(upload[0])}))
        if not isinstance(event, dict) or 'event_id' not in event:
            raise ReconstructionError('it did not take the call')
        events = self._fetch('GET', f"{call}/{quote(str(event['event_id']))}", _TALK)
        path = _glb_path(_result(events))
        # The file's name, not the address that the server gives: that could be anywhere.
        return self._fetch('GET', f'{api}/file={quote(path)}', self._most)

    def _arguments(self, path: str) -> list[Any]:
        image = {'path': path, 'orig_name': 'object.png', 'mime_type': 'image/png',
                 'meta': {'_type': 'gradio.FileData'}}
        known = {'image': image, 'guidance_scale': self.options.guidance_scale,
                 'inference_steps': self.options.inference_steps}
        return [known[item] if item in known else _value(item) for item in self.options.arguments]

    def _fetch(self, method: str, url: str, most: int, **content: Any) -> bytes:
        """
        Make one request; return the body of the answer.

        Libraries limit the time between two bytes, not that of the whole; a server that sends a
        byte now and then is left to a thread of its own.

        :param most: bytes of the answer
        """
        if monotonic() >= self.deadline:
            raise self._too_slow()
        try:
            return within(self.deadline - monotonic(),
                          lambda: self._body(method, url, most, **content))
        except TimeoutError as error:
            raise self._too_slow() from error

    def _body(self, method: str, url: str, most: int, **content: Any) -> bytes:
        from requests import RequestException
        from requests import Timeout

        left = max(0.01, self.deadline - monotonic())
        body = bytearray()
        try:
            # A redirection would take the picture to a server that nobody has named.
            with self._session.request(
                    method, url, headers=self._headers, stream=True, allow_redirects=False,
                    timeout=(min(left, self.options.connect_timeout), left),
                    **content) as response:
                _check_status(response.status_code, response.headers.get('Location', ''))
                for part in response.iter_content(65536):
                    body += part
                    if len(body) > most:
                        raise ReconstructionError(
                            f'its answer is larger than {most / 1e6:g} MB; raise '
                            'remote.max_megabytes if that is right')
                    if monotonic() > self.deadline:
                        raise self._too_slow()
        except Timeout as error:
            raise _TryAgain(f'no connection within {self.options.connect_timeout:g} s'
                            if monotonic() < self.deadline else str(self._too_slow())) from error
        except (RequestException, ValueError) as error:
            if monotonic() >= self.deadline:  # which a body that stops is no `Timeout` for
                raise self._too_slow() from error
            raise _TryAgain(
                f'the connection failed ({type(error).__name__}: {first_line(error)})') from error
        return bytes(body)

    def _too_slow(self) -> ReconstructionError:
        return ReconstructionError(
            f'no answer within {self.options.timeout:g} s; raise remote.timeout if it needs more')


def _check_status(status: int, location: str) -> None:
    if status in _BUSY:
        raise _TryAgain(f'it answers with HTTP status {status}')
    if 300 <= status < 400:
        raise ReconstructionError(
            f"it sends on to '{location[:200]}'; set remote.url to that if it may see the "
            'pictures')
    if status in (401, 403):
        raise ReconstructionError(
            f'it refuses (HTTP status {status}); put a token into the environment variable that '
            'remote.token_variable names')
    if status != 200:
        raise ReconstructionError(
            f'it answers with HTTP status {status}; check remote.url, remote.kind and '
            'remote.api_name')


def _result(events: bytes) -> Any:
    """Return what a function has returned, from the events of its call."""
    kind = ''
    for line in events.decode(errors='replace').splitlines():
        name, _, value = line.partition(': ')
        if name == 'event':
            kind = value
        elif name == 'data' and kind == 'complete':
            return _json(value.encode())
        elif name == 'data' and kind == 'error':
            raise _TryAgain(f'its function failed ({first_line(Exception(value))})')
    raise _TryAgain('it gave no result')


def _glb_path(result: Any) -> str:
    """Return the first GLB file in what a Gradio function has returned."""
    path = next((path for path in _paths(result) if path.lower().endswith('.glb')), None)
    if path is None:
        raise ReconstructionError(
            f"its function returns no GLB file but '{json.dumps(result)[:100]}'; check "
            'remote.api_name')
    return path


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(value.get('path'), str):
        yield value['path']
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _paths(item)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReconstructionError(
            'its answer is not what a Gradio app says; check remote.url and remote.kind'
        ) from error


def _value(text: str) -> Any:
    """Read a value in JSON; what is none is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _host(url: str) -> str:
    """Return the host of an address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(''), None
    if parts.scheme not in ('http', 'https') or not host:
        raise OptionError('remote.url is no address of a server; write https://HOST/PATH')
    if parts.username or parts.password:
        raise OptionError(
            'remote.url must not hold a password, because it is written into logs; put a token '
            'into the environment variable that remote.token_variable names')
    return host


def _warn(host: str, is_encrypted: bool) -> None:
    where = ', which is this machine' if _is_loopback(host) else (
        ': pictures leave this robot' + ('' if is_encrypted else ', unencrypted'))
    _LOGGER.warning(
        "the reconstructor 'remote' sends a picture of every object to '%s'%s", host, where)


def _is_loopback(host: str) -> bool:
    try:
        return host == 'localhost' or ip_address(host).is_loopback
    except ValueError:
        return False


BACKEND = RemoteReconstructor
