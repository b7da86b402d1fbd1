/** A corrected mask with its scan, as `flapsam data import` takes them, and a note of where the mask is from. */

import { zipSync } from "fflate";

import { blank } from "./nifti";

/** Where a mask is from. */
export interface Note {
    site: string;
    case: string;
    /** Whoever corrected it, as they call themselves. */
    madeBy: string;
    /** When it was saved. */
    date: string;
    /** The mask that it began with: native, browser, truth or empty. */
    beganWith: string;
    /** By what it was changed since: brush, SAM, carried (SAM's answers, from slice to slice). */
    changedBy: string[];
    /** The network behind the mask that it began with, or behind SAM's answers. */
    model: { run: string; program: string; baseSha256: string; adapterSha256: string | null };
    /** Of the labels from 0 on. */
    classes: string[];
}

/** A zip of SITE/x.nii.gz, SITE/x_mask.nii.gz and SITE/x.json. */
export async function trainingZip(note: Note, scan: Uint8Array, mask: Uint8Array): Promise<Uint8Array> {
    const [site, name] = [plain(note.site), numbered(plain(note.case))];
    const json = new TextEncoder().encode(`${JSON.stringify(note, null, 2)}\n`);
    const files = {
        [`${site}/${name}.nii.gz`]: await nameless(scan),
        [`${site}/${name}_mask.nii.gz`]: await nameless(mask),
        [`${site}/${name}.json`]: json,
    };
    // Packed they are already.
    return zipSync(files, { level: 0 });
}

/** A name that every file may have. */
function plain(name: string): string {
    return name.replaceAll(/[^\w-]+/g, "_").replaceAll(/^_+|_+$/g, "") || "own";
}

/** A word at the end, such as "image" or "mask", would be taken for what the file is. */
function numbered(name: string): string {
    return /\d$/.test(name) ? name : `${name}_1`;
}

/** The file, gzipped, without its header's texts. */
async function nameless(file: Uint8Array): Promise<Uint8Array> {
    const packed = file[0] === 0x1f && file[1] === 0x8b;
    const open = packed ? await through(file, new DecompressionStream("gzip")) : file;
    return through(blank(open), new CompressionStream("gzip"));
}

async function through(bytes: Uint8Array, stream: CompressionStream | DecompressionStream): Promise<Uint8Array> {
    const changed = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(stream);
    return new Uint8Array(await new Response(changed).arrayBuffer());
}
