# SPDX-License-Identifier: Apache-2.0
"""
Single objects as files of other formats, in the object frame: metres, z up, x to the camera.

GLB alone is y up, as glTF wants. Where a format holds no texture the vertices' colours are
written; STL holds neither.
"""

import numpy as np

from img2scene_ros.mesh.gltf import Node
from img2scene_ros.mesh.gltf import glb
from img2scene_ros.mesh.gltf import split_corners
from img2scene_ros.rendering.normals import vertex_normals
from img2scene_ros.types import ObjectModel

FORMATS = ('glb', 'obj', 'ply', 'stl', 'dae')


def mesh_files(model: ObjectModel, stem: str, kind: str) -> dict[str, bytes]:
    """
    Write a mesh.

    RViz shows `dae` as it should be: bright enough, and turned the right way.

    :param stem: the files' name without suffix, safe for URIs
    :param kind: one of `FORMATS`
    :return: files by name, the mesh first; its material and texture lie beside it
    """
    if kind == 'glb':
        return {f'{stem}.glb': glb([Node(stem, model, np.eye(4), {})])}
    if kind == 'obj':
        return _obj(model, stem)
    if kind == 'dae':
        files = {f'{stem}.dae': _collada(model, stem).encode()}
        return files if model.texture is None else files | {f'{stem}.png': model.texture.png}
    return {f'{stem}.{kind}': _exported(model, kind)}


def _obj(model: ObjectModel, stem: str) -> dict[str, bytes]:
    """Write Wavefront OBJ; without a texture colours follow the vertices' coordinates."""
    normals = vertex_normals(model.vertices.astype(float), model.faces)
    faces = model.faces + 1
    if model.texture is None:
        colored = np.concatenate([model.vertices, model.colors / 255.0], axis=1)
        lines = [_rows('v', colored, '%.6g'), _rows('vn', normals, '%.4f'),
                 _rows('f', np.repeat(faces, 2, axis=1), '%d//%d')]
        return {f'{stem}.obj': '\n'.join([f'o {stem}', *lines, '']).encode()}
    _, uv, corners = split_corners(model.faces, model.texture)
    places = np.stack([faces, corners + 1, faces], axis=2).reshape(-1, 9)
    text = '\n'.join([
        f'mtllib {stem}.mtl', f'o {stem}', _rows('v', model.vertices, '%.6g'),
        _rows('vt', uv * (1, -1) + (0, 1), '%.6f'), _rows('vn', normals, '%.4f'),
        f'usemtl {stem}', _rows('f', places, '%d/%d/%d'), ''])
    material = f'newmtl {stem}\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {stem}.png\n'
    return {f'{stem}.obj': text.encode(), f'{stem}.mtl': material.encode(),
            f'{stem}.png': model.texture.png}


def _rows(word: str, values: np.ndarray, form: str) -> str:
    """Return a line per row: a word and its values, several of which may share one form."""
    line = f'{word} ' + ' '.join([form] * (values.shape[1] // form.count('%')))
    return '\n'.join([line] * len(values)) % tuple(values.ravel().tolist())


def _exported(model: ObjectModel, kind: str) -> bytes:
    """Write PLY or STL, which holds no colours."""
    import trimesh

    vertices = model.vertices.astype(np.float32)
    if vertices[:1].tobytes()[:1] == b'\n':  # RViz takes it for an end of line in PLY, and crashes
        vertices[0, 0] = np.nextafter(vertices[0, 0], np.float32(1))
    mesh = trimesh.Trimesh(vertices, model.faces, vertex_colors=model.colors, process=False)
    return mesh.export(file_type=kind)


def _collada(model: ObjectModel, stem: str) -> str:
    """Return a COLLADA 1.4.1 document; without a texture it has the vertices' colours."""
    normals = vertex_normals(model.vertices.astype(float), model.faces)
    sources = [_source('position', model.vertices, 'XYZ'), _source('normal', normals, 'XYZ')]
    if model.texture is None:
        semantic, places = 'COLOR', model.faces
        sources.append(_source('color', model.colors / 255.0, 'RGB'))
        image = surface = ''
        red, green, blue = model.colors.mean(axis=0) / 255.0
        diffuse = f'<color>{red:.4f} {green:.4f} {blue:.4f} 1</color>'
    else:
        _, uv, places = split_corners(model.faces, model.texture)
        semantic = 'TEXCOORD'
        sources.append(_source('texcoord', uv * (1, -1) + (0, 1), 'ST'))
        image = (f'<library_images><image id="image"><init_from>{stem}.png</init_from></image>'
                 '</library_images>')
        surface = (
            '<newparam sid="surface"><surface type="2D"><init_from>image</init_from></surface>'
            '</newparam><newparam sid="sampler"><sampler2D><source>surface</source></sampler2D>'
            '</newparam>')
        diffuse = '<texture texture="sampler" texcoord="uv"/>'
    corners = np.stack([model.faces, places], axis=2).ravel()
    count = len(model.faces)
    return f'''<?xml version="1.0" encoding="utf-8"?>
<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><contributor><authoring_tool>img2scene</authoring_tool></contributor>
<created>2000-01-01T00:00:00Z</created><modified>2000-01-01T00:00:00Z</modified>
<unit name="meter" meter="1"/><up_axis>Z_UP</up_axis></asset>
{image}
<library_effects><effect id="effect"><profile_COMMON>{surface}<technique sid="common"><lambert>
<diffuse>{diffuse}</diffuse></lambert></technique></profile_COMMON></effect></library_effects>
<library_materials><material id="material"><instance_effect url="#effect"/></material>
</library_materials>
<library_geometries><geometry id="geometry" name="{stem}"><mesh>
{''.join(sources)}<vertices id="vertices"><input semantic="POSITION" source="#position"/>
<input semantic="NORMAL" source="#normal"/></vertices>
<triangles count="{count}" material="material">
<input semantic="VERTEX" source="#vertices" offset="0"/>
<input semantic="{semantic}" source="#{semantic.lower()}" offset="1" set="0"/>
<p>{' '.join(map(str, corners.tolist()))}</p></triangles></mesh></geometry></library_geometries>
<library_visual_scenes><visual_scene id="scene"><node id="node" name="{stem}">
<instance_geometry url="#geometry"><bind_material><technique_common>
<instance_material symbol="material" target="#material">
<bind_vertex_input semantic="uv" input_semantic="TEXCOORD" input_set="0"/></instance_material>
</technique_common></bind_material></instance_geometry></node></visual_scene>
</library_visual_scenes>
<scene><instance_visual_scene url="#scene"/></scene></COLLADA>
'''


def _source(name: str, values: np.ndarray, axes: str) -> str:
    rows, columns = values.shape
    numbers = _rows('', values, '%.6g')
    parameters = ''.join(f'<param name="{axis}" type="float"/>' for axis in axes)
    return (
        f'<source id="{name}"><float_array id="{name}-array" count="{rows * columns}">\n{numbers}'
        f'</float_array><technique_common><accessor source="#{name}-array" count="{rows}" '
        f'stride="{columns}">{parameters}</accessor></technique_common></source>\n')
