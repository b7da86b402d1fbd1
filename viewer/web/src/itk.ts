/**
 * NRRD and MetaImage files (.mha, .mhd with its raw file) as NIfTI: the voxels as they are, behind another header.
 *
 * NiiVue's own readers of them skip voxels whose first bytes are line feeds, know one of three names of a place, and lose
 * the directions of a header without a transform.
 */

import { nifti, type Grid } from "./nifti";

/** A file's parts, before its voxels are unpacked. */
interface Parts {
    grid: Grid;
    packed: CompressionFormat | null;
    voxels: Uint8Array;
}

type Fields = Map<string, string>;
type Vector = [number, number, number];

export const ITK = /\.(nrrd|nhdr|mha|mhd)$/i;

/** NIfTI's code and the bytes of a voxel, by the names that both formats have for it. */
const TYPES: [names: RegExp, code: number, size: number][] = [
    [/^(uchar|unsigned char|uint8(_t)?|met_uchar)$/, 2, 1],
    [/^(signed char|int8(_t)?|met_char)$/, 256, 1],
    [/^((signed )?short( int)?|int16(_t)?|met_short)$/, 4, 2],
    [/^(ushort|unsigned short( int)?|uint16(_t)?|met_ushort)$/, 512, 2],
    [/^((signed )?int|int32(_t)?|met_int)$/, 8, 4],
    [/^(uint|unsigned int|uint32(_t)?|met_uint)$/, 768, 4],
    [/^(float|met_float)$/, 16, 4],
    [/^(double|met_double)$/, 64, 8],
];

/** From the axes of a file's space to the right, to the front and up. */
const SPACES: Record<string, Vector> = {
    "right-anterior-superior": [1, 1, 1],
    ras: [1, 1, 1],
    "left-anterior-superior": [-1, 1, 1],
    las: [-1, 1, 1],
    "left-posterior-superior": [-1, -1, 1],
    lps: [-1, -1, 1],
};

/** The file as NIfTI. `beside` finds the file of the voxels, where a header has them in another one. */
export async function fromItk(name: string, file: Uint8Array, beside: (name: string) => Promise<Uint8Array>) {
    try {
        const { grid, packed, voxels } = await (/\.m/i.test(name) ? metaImage : nrrd)(file, beside);
        return nifti(grid, packed ? await unpacked(voxels, packed) : voxels);
    } catch (error) {
        throw new Error(`${name}: ${error instanceof Error ? error.message : error}`);
    }
}

async function nrrd(file: Uint8Array, beside: (name: string) => Promise<Uint8Array>): Promise<Parts> {
    const { lines, after } = header(file, (line) => line === "");
    if (!lines[0]?.startsWith("NRRD")) throw new Error("it is no NRRD file");
    const fields = fieldsOf(lines, /^([^:#]+): *(.*)$/);
    const encoding = fields.get("encoding") ?? "raw";
    if (!["raw", "gzip", "gz"].includes(encoding)) throw new Error(`its encoding, ${encoding}, is none of raw and gzip`);
    const space = fields.get("space");
    const turn = SPACES[space ?? ""];
    const directions = numbers(fields.get("space directions"));
    const origin = numbers(fields.get("space origin"));
    if (!turn || directions.length !== 9 || origin.length !== 3) {
        throw new Error("it does not say where in space it lies (space, space directions and space origin of three axes)");
    }
    const units = fields.get("space units") ?? "mm";
    if (!/^("?(mm|millimeters?)"? ?)+$/.test(units)) throw new Error(`its units, ${units}, are not millimetres`);
    const other = fields.get("data file") ?? fields.get("datafile");
    const voxels = other === undefined ? file.subarray(after) : await beside(other);
    const skipped = ["line skip", "lineskip", "byte skip", "byteskip"].some((key) => Number(fields.get(key) ?? 0) !== 0);
    if (skipped) throw new Error("its voxels begin somewhere in the file (byte skip, line skip), which is not read");
    return {
        grid: grid(fields.get("sizes"), fields.get("type"), fields.get("endian") === "big", vectors(directions), origin, turn),
        packed: encoding === "raw" ? null : "gzip",
        voxels,
    };
}

async function metaImage(file: Uint8Array, beside: (name: string) => Promise<Uint8Array>): Promise<Parts> {
    const { lines, after } = header(file, (line) => /^ElementDataFile\b/i.test(line));
    const fields = fieldsOf(lines, /^(\w+) *= *(.*)$/);
    const get = (...names: string[]) => names.map((name) => fields.get(name)).find((value) => value !== undefined);
    if (Number(get("elementnumberofchannels") ?? 1) !== 1) throw new Error("its voxels have several values each");
    if (Number(get("headersize") ?? 0) !== 0) throw new Error("its voxels begin somewhere in the file (HeaderSize), which is not read");
    const spacing = numbers(get("elementspacing", "elementsize") ?? "1 1 1");
    const turned = numbers(get("transformmatrix", "orientation", "rotation") ?? "1 0 0 0 1 0 0 0 1");
    const directions = vectors(turned).map((axis, index) => axis.map((part) => part * (spacing[index] ?? NaN)) as Vector);
    const other = (lines.at(-1) ?? "").replace(/^\w+ *= */, "").trim();
    return {
        grid: grid(
            get("dimsize"),
            get("elementtype"),
            get("binarydatabyteordermsb", "elementbyteordermsb") === "true",
            directions,
            numbers(get("offset", "position", "origin") ?? "0 0 0"),
            [-1, -1, 1],
        ),
        packed: get("compresseddata") === "true" ? "deflate" : null,
        voxels: other.toUpperCase() === "LOCAL" ? file.subarray(after) : await beside(other),
    };
}

/** The lines up to the one that ends a header, and where the next byte is. */
function header(file: Uint8Array, isLast: (line: string) => boolean): { lines: string[]; after: number } {
    const lines: string[] = [];
    for (let from = 0; from < file.length; ) {
        const end = file.indexOf(10, from);
        if (end < 0 || lines.length > 1000) break;
        const line = new TextDecoder().decode(file.subarray(from, end)).replace(/\r$/, "");
        lines.push(line);
        from = end + 1;
        if (isLast(line)) return { lines, after: from };
    }
    // A header by itself may end with the file.
    const rest = new TextDecoder().decode(file.subarray(0, 1 << 20)).trimEnd().split(/\r?\n/);
    return { lines: rest, after: file.length };
}

/** Keys and values, both in small letters, but for names of files. */
function fieldsOf(lines: string[], form: RegExp): Fields {
    const found = lines.map((line) => form.exec(line)).filter((match) => match !== null);
    return new Map(
        found.map(([, key = "", value = ""]) => {
            const name = key.trim().toLowerCase();
            return [name, /^data ?file$/.test(name) ? value.trim() : value.trim().toLowerCase()];
        }),
    );
}

function numbers(text: string | undefined): number[] {
    return (text ?? "").split(/[\s,()]+/).filter(Boolean).map(Number);
}

/** Of three axes, one after the other. */
function vectors(all: number[]): Vector[] {
    return [0, 3, 6].map((at) => all.slice(at, at + 3) as Vector);
}

function grid(
    sizes: string | undefined,
    type: string | undefined,
    bigEndian: boolean,
    directions: Vector[],
    origin: number[],
    turn: Vector,
): Grid {
    const dims = numbers(sizes);
    if (dims.length !== 3) throw new Error(`it has ${dims.length} axes instead of three`);
    const [, code, bytes] = TYPES.find(([names]) => names.test(type ?? "")) ?? [];
    if (!code || !bytes) throw new Error(`its values are of the type ${type}, which is not read`);
    const affine = turn.map((sign, row) => [...directions.map((axis) => sign * (axis[row] ?? NaN)), sign * (origin[row] ?? NaN)]);
    if (!affine.flat().every(Number.isFinite)) throw new Error("it does not say where in space it lies");
    return { dims: dims as Vector, affine, type: { code, bytes }, bigEndian };
}

async function unpacked(bytes: Uint8Array, format: CompressionFormat): Promise<Uint8Array> {
    try {
        const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream(format));
        return new Uint8Array(await new Response(stream).arrayBuffer());
    } catch {
        throw new Error("its voxels are damaged or cut off");
    }
}
