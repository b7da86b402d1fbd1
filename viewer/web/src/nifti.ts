/** NIfTI headers, as far as the page has to know them. */

/** Where a header's texts are: start and length. None of them says where the voxels lie or what they are worth. */
const TEXTS = {
    /** data_type, db_name, descrip, aux_file, intent_name. */
    1: [[4, 10], [14, 18], [148, 80], [228, 24], [328, 16]],
    /** descrip, aux_file, intent_name. */
    2: [[240, 80], [320, 24], [508, 16]],
} as const;

/** The file without its header's texts and extensions, which may hold anything, names too. It must not be gzipped. */
export function blank(file: Uint8Array): Uint8Array {
    const clean = file.slice();
    const view = new DataView(clean.buffer);
    const little = [348, 540].includes(view.getInt32(0, true));
    const size = view.getInt32(0, little);
    for (const [start, length] of TEXTS[size === 540 ? 2 : 1]) clean.fill(0, start, start + length);
    const voxels = size === 540 ? Number(view.getBigInt64(168, little)) : view.getFloat32(108, little);
    clean.fill(0, size, Math.max(size, voxels));
    return clean;
}

/** Whether a NIfTI-1 file, little-endian and not gzipped, says by a code where it lies in space. */
export function isPlaced(file: Uint8Array): boolean {
    const view = new DataView(file.buffer, file.byteOffset);
    return view.getInt16(252, true) > 0 || view.getInt16(254, true) > 0;
}

/** A scan's grid, and how its values are written. */
export interface Grid {
    dims: [number, number, number];
    /** Rows: voxel indices to millimetres to the right, to the front and up. */
    affine: number[][];
    type: { code: number; bytes: number };
    bigEndian: boolean;
}

/** Where the voxels of a file of ours begin. */
const HEADER = 352;

/** A NIfTI-1 file of these voxels. */
export function nifti({ dims, affine, type, bigEndian }: Grid, voxels: Uint8Array): Uint8Array {
    const count = dims.reduce((all, side) => all * side, 1);
    if (!dims.every((side) => side > 0 && side <= 32767)) throw new Error(`${dims.join(" x ")} voxels are no scan`);
    if (voxels.length < count * type.bytes) throw new Error(`it is cut off: ${voxels.length} of ${count * type.bytes} bytes of voxels`);
    const file = new Uint8Array(HEADER + count * type.bytes);
    const view = new DataView(file.buffer);
    const little = !bigEndian;
    view.setInt32(0, 348, little);
    view.setInt16(40, 3, little);
    [...dims, 1, 1, 1, 1].forEach((side, axis) => view.setInt16(42 + 2 * axis, side, little));
    view.setInt16(70, type.code, little);
    view.setInt16(72, 8 * type.bytes, little);
    [0, 1, 2].forEach((axis) => view.setFloat32(80 + 4 * axis, Math.hypot(...affine.map((row) => row[axis] ?? 0)), little));
    view.setFloat32(108, HEADER, little);
    view.setFloat32(112, 1, little);
    // Millimetres.
    view.setUint8(123, 2);
    view.setInt16(254, 1, little);
    affine.flat().forEach((value, index) => view.setFloat32(280 + 4 * index, value, little));
    file.set(new TextEncoder().encode("n+1"), 344);
    file.set(voxels.subarray(0, count * type.bytes), HEADER);
    return file;
}
