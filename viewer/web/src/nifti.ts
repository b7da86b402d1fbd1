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
