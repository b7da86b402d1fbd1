/** Surfaces of masks as STL, in the scan's own millimetres to the right, to the front and up. */

import { zipSync } from "fflate";
import { marchingCubes } from "isosurface";

import type { LabelMap, Triple } from "./amounts";

type Triangle = [Triple, Triple, Triple];

/** A zip of an STL file for each class, of those that there are; null if there is none. */
export function meshes(map: LabelMap, classes: string[]): Uint8Array | null {
    const surfaces = classes.map((name, label) => [name, label === 0 ? [] : surface(map, label)] as const);
    const there = surfaces.filter(([, triangles]) => triangles.length > 0);
    const files = there.map(([name, triangles]) => [`${name.replaceAll(/[^\w-]+/g, "_")}.stl`, stl(triangles)] as const);
    return files.length ? zipSync(Object.fromEntries(files)) : null;
}

/** Halfway between the voxels of a label and those of others; it looks outwards. */
function surface(map: LabelMap, label: number): Triangle[] {
    const box = boundsOf(map, label);
    if (!box) return [];
    const [from, to] = box;
    // A voxel more on each side, which closes the surface.
    const dims = from.map((start, axis) => (to[axis] ?? 0) - start + 3) as Triple;
    const place = (at: Triple) => at.map((value, axis) => value + (from[axis] ?? 0) - 1) as Triple;
    const isInside = (x: number, y: number, z: number) => (valueAt(map, place([x, y, z])) === label ? 1 : -1);
    const { positions, cells } = marchingCubes(dims, isInside);
    const points = positions.map((at) => toMillimetres(map, place(at)));
    const triangles = cells.map((cell) => cell.map((index) => points[index]) as Triangle);
    return volume(triangles) < 0 ? triangles.map(([one, two, three]) => [one, three, two]) : triangles;
}

/** The first and the last voxel of a label along each axis. */
function boundsOf(map: LabelMap, label: number): [Triple, Triple] | null {
    const [from, to]: [Triple, Triple] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
    for (let z = 0; z < map.dims[2]; z++) {
        for (let y = 0; y < map.dims[1]; y++) {
            for (let x = 0; x < map.dims[0]; x++) {
                if (valueAt(map, [x, y, z]) !== label) continue;
                [x, y, z].forEach((at, axis) => {
                    from[axis] = Math.min(from[axis] ?? at, at);
                    to[axis] = Math.max(to[axis] ?? at, at);
                });
            }
        }
    }
    return to[0] < from[0] ? null : [from, to];
}

function valueAt({ values, dims, start, steps }: LabelMap, [x, y, z]: Triple): number {
    if (x < 0 || y < 0 || z < 0 || x >= dims[0] || y >= dims[1] || z >= dims[2]) return 0;
    return values[start + x * steps[0] + y * steps[1] + z * steps[2]] ?? 0;
}

function toMillimetres({ axes, origin }: LabelMap, at: Triple): Triple {
    return origin.map((first, row) => axes.reduce((sum, axis, index) => sum + (axis[row] ?? 0) * (at[index] ?? 0), first)) as Triple;
}

/** Six times what is inside; negative where the triangles look inwards. */
function volume(triangles: Triangle[]): number {
    return triangles.reduce((sum, [[a, b, c], [d, e, f], [g, h, i]]) => {
        return sum + a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    }, 0);
}

/** Binary STL. Normals are left to the reader, who has them from the order of the corners. */
function stl(triangles: Triangle[]): Uint8Array {
    const view = new DataView(new ArrayBuffer(84 + 50 * triangles.length));
    view.setUint32(80, triangles.length, true);
    triangles.forEach((corners, index) => {
        corners.flat().forEach((value, place) => view.setFloat32(84 + 50 * index + 12 + 4 * place, value, true));
    });
    return new Uint8Array(view.buffer);
}
