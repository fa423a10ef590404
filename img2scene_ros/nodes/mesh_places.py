# SPDX-License-Identifier: Apache-2.0
"""
Where viewers fetch textured meshes from: a folder of this machine, or a small web server.

Both hold few files under names that tell their content, so that a name never means anything else.
"""

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Set
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any

from img2scene_ros.errors import InputError
from img2scene_ros.files import replacing
from img2scene_ros.files import user_path
from img2scene_ros.mesh.formats import mesh_files
from img2scene_ros.types import ObjectModel

SPARE = 20  # meshes kept after they were last shown, for viewers that lag behind
IDLE = 30.0  # seconds after which a silent connection is closed

_KINDS = {'.dae': 'model/vnd.collada+xml', '.png': 'image/png'}


class MeshFiles:
    """
    Meshes in the form that RViz shows as they are: COLLADA with its texture beside it.

    :param place: taken over; closed with this
    """

    def __init__(self, place: 'MeshFolder | MeshServer') -> None:
        self._place = place
        self._names: dict[str, list[str]] = {}  # files by URI, the oldest mesh first

    def uri(self, model: ObjectModel) -> str:
        """
        Return where a mesh with a texture is found; it is there when this returns.

        :raises InputError: it cannot be put there; nothing of it is left
        """
        stem = _content_name(model)
        uri = f'{self._place.base_uri}/{stem}.dae'
        if uri not in self._names:
            files = mesh_files(model, stem, 'dae')
            try:
                for name in reversed(files):  # the mesh when its texture is there
                    self._place.put(name, files[name])
            except OSError as error:
                for name in files:
                    self._place.drop(name)
                raise InputError(
                    f"cannot write a mesh to '{self._place.base_uri}' "
                    f'({error.strerror or error}); free some space there') from error
            self._names[uri] = list(files)
        return uri

    def keep(self, uris: Set[str]) -> None:
        """Remove all meshes but these and the `SPARE` latest others."""
        unused = [uri for uri in self._names if uri not in uris]
        for uri in unused[:-SPARE]:
            for name in self._names.pop(uri):
                self._place.drop(name)

    def close(self) -> None:
        """Remove everything."""
        self._place.close()


class MeshFolder:
    """
    A new folder of its own, for viewers of the same user on the same machine.

    :param parent: where it is made; '' is the system's folder for temporary files
    :raises InputError: it cannot be made
    """

    def __init__(self, parent: str) -> None:
        try:
            if parent:
                parent = os.path.abspath(user_path(parent))
                os.makedirs(parent, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix='img2scene-', dir=parent or None))
        except OSError as error:
            raise InputError(
                f"cannot make a folder for meshes in '{parent or tempfile.gettempdir()}' "
                f'({error.strerror or error}); choose another markers.mesh_directory') from error
        self.base_uri = self.folder.as_uri()

    def put(self, name: str, content: bytes) -> None:
        """
        Write a file; it appears whole or not at all.

        :raises OSError: it cannot be written
        """
        with replacing(self.folder / name) as file:
            file.write(content)

    def drop(self, name: str) -> None:
        """Remove a file."""
        with suppress(OSError):
            (self.folder / name).unlink()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class MeshServer:
    """
    Serves files from memory, read-only: what is not there by that very name is not found.

    :param host: address to listen on; 0.0.0.0 are all of this machine
    :param port: 0 is any free one
    :raises InputError: it cannot listen there
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise InputError(
                f"cannot serve meshes on '{host}:{port}' ({error.strerror or error}); choose "
                'another markers.http_host or markers.http_port (0: any free one)') from error
        name = socket.gethostname() if host in ('', '0.0.0.0') else host
        self.base_uri = f'http://{name}:{self._server.server_address[1]}'
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def put(self, name: str, content: bytes) -> None:
        """Serve a file."""
        self._server.files[name] = content

    def drop(self, name: str) -> None:
        """Serve a file no longer."""
        self._server.files.pop(name, None)

    def close(self) -> None:
        """Stop listening and end all connections."""
        self._server.shutdown()
        self._server.server_close()
        self._server.end_connections()


class _Server(ThreadingTCPServer):
    # Not HTTPServer: it looks the host's name up, which takes seconds where there is no DNS.
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type) -> None:
        self.files: dict[str, bytes] = {}
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a viewer that hangs up is no fault."""

    def end_connections(self) -> None:
        """End those that are open; their threads then end by themselves."""
        self.files.clear()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = 'HTTP/1.1'
    server_version, sys_version = 'img2scene', ''
    timeout = IDLE
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        # The path is looked up as it came, undecoded: no spelling of it leads anywhere else.
        name = self.path.partition('?')[0].removeprefix('/')
        content = self.server.files.get(name)
        if content is None:
            self._send(HTTPStatus.NOT_FOUND, b'no such mesh\n', {'Content-Type': 'text/plain'})
            return
        tag = f'"{name}"'  # which tells the content
        known = {one.strip().removeprefix('W/')
                 for one in self.headers.get('If-None-Match', '').split(',')}
        caching = {'ETag': tag, 'Cache-Control': 'public, max-age=31536000, immutable'}
        if known & {tag, '*'}:
            self._send(HTTPStatus.NOT_MODIFIED, None, caching)
        else:
            kind = _KINDS[os.path.splitext(name)[1]]
            self._send(HTTPStatus.OK, content, {'Content-Type': kind, **caching})

    do_HEAD = do_GET

    def _send(self, status: HTTPStatus, content: bytes | None, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header('Access-Control-Allow-Origin', '*')  # viewers that are web pages
        for name, value in headers.items():
            self.send_header(name, value)
        if content is not None:
            self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if content is not None and self.command != 'HEAD':
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _content_name(model: ObjectModel) -> str:
    digest = hashlib.sha256()
    texture = [model.texture.uv, model.texture.image] if model.texture else []
    for part in (model.vertices, model.faces, *texture):
        digest.update(f'{part.dtype}{part.shape}'.encode())
        digest.update(part.tobytes())
    return f'mesh_{digest.hexdigest()[:32]}'
