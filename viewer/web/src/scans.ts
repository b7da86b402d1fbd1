/** A user's scans of any format that is read, as NIfTI, which is what the engine reads. */

import type { OwnFile } from "./files";
import { fromItk, ITK } from "./itk";

const NIFTI = /\.nii(\.gz)?$/i;
/** Voxels that belong to a header of another file. */
const RAW = /\.(z?raw|raw\.gz|img)$/i;

/** What was found among files: scans, and series of DICOM, of which the user wants one. */
export interface Found {
    scans: OwnFile[];
    series: OwnFile[];
}

export async function scansAmong(files: File[]): Promise<Found> {
    const headers = files.filter(({ name }) => ITK.test(name));
    const scans = await Promise.all([
        ...files.filter(({ name }) => NIFTI.test(name)).map(read),
        ...headers.map((file) => itk(file, files)),
    ]);
    // Names of DICOM files say nothing.
    const others = files.filter(({ name }) => ![NIFTI, ITK, ...(headers.length ? [RAW] : [])].some((of) => of.test(name)));
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

async function itk(file: File, among: File[]): Promise<OwnFile> {
    const { name, bytes } = await read(file);
    const beside = async (wanted: string) => {
        const found = among.find((one) => one.name === wanted);
        if (!found) throw new Error(`its voxels are in ${wanted}; choose or drop both files together`);
        return (await read(found)).bytes;
    };
    return { name: name.replace(ITK, ".nii"), bytes: await fromItk(name, bytes, beside) };
}
