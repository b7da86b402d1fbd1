/** A user's scans of any format that is read, as NIfTI, which is what the engine reads. */

import type { OwnFile } from "./files";

const NIFTI = /\.nii(\.gz)?$/i;

/** What was found among files: scans, and series of DICOM, of which the user wants one. */
export interface Found {
    scans: OwnFile[];
    series: OwnFile[];
}

export async function scansAmong(files: File[]): Promise<Found> {
    const scans = await Promise.all(files.filter(({ name }) => NIFTI.test(name)).map(read));
    const others = files.filter(({ name }) => !NIFTI.test(name));
    // Names of DICOM files say nothing.
    const series = others.length ? await (await import("./dicom")).seriesOf(others) : [];
    return { scans, series };
}

/** A file's bytes. */
export async function read(file: File): Promise<OwnFile> {
    try {
        return { name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) };
    } catch {
        throw new Error(`${file.name} cannot be read; choose it again.`);
    }
}
