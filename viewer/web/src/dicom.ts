/** DICOM series as NIfTI, by dcm2niix in WebAssembly, which is loaded with this file. */

import { Dcm2niix } from "@niivue/dcm2niix";
import { type DataSet, parseDicom } from "dicom-parser";

import { blank, isPlaced } from "./nifti";
import type { OwnFile } from "./files";

/** The ends of names by which dcm2niix says what it had to do to a series: its values lie elsewhere, or it made some up. */
const MENDED: [RegExp, string][] = [
    [/_Tilt(_\d+)?\.nii$/, "lie askew over each other, as a tilted gantry takes them; 'flapsam segment' reads them"],
    [/_Eq(_\d+)?\.nii$/, "are not equally far apart; is a file of it missing?"],
];

/** Tags of what a file of many frames says of each of them (DICOM PS3.3, C.7.6.16). */
const [FRAMES, SCALING, INTERCEPT, SLOPE, PIXELS] = ["x52009230", "x00289145", "x00281052", "x00281053", "x7fe00010"];

/** Every series among the files, by its number and description; an error says which of them cannot be used, and why. */
export async function seriesOf(files: File[]): Promise<OwnFile[]> {
    for (const file of files) await checkScalings(file);
    const volumes = (await convert(files)).filter(({ name }) => name.endsWith(".nii"));
    for (const { name } of volumes) {
        for (const [end, why] of MENDED) {
            if (end.test(name)) throw new Error(`The slices of the series ${name.replace(end, "")} ${why}`);
        }
    }
    return Promise.all(volumes.map(volume));
}

/** dcm2niix gives every frame of a file the scaling of the first. */
async function checkScalings(file: File): Promise<void> {
    if (scalings(new Uint8Array(await file.arrayBuffer())).size > 1) {
        throw new Error(`The frames of ${file.name} have scalings of their own; 'flapsam segment' reads them.`);
    }
}

/** The different slopes and intercepts of the frames in one file; none where it is no file of many frames. */
function scalings(bytes: Uint8Array): Set<string> {
    let data: DataSet;
    try {
        data = parseDicom(bytes, { untilTag: PIXELS });
    } catch {
        // Whether it is DICOM at all is dcm2niix's to say.
        return new Set();
    }
    const frames = data.elements[FRAMES]?.items ?? [];
    return new Set(frames.map(({ dataSet }) => scaling(dataSet?.elements[SCALING]?.items?.[0]?.dataSet)));
}

/** As numbers: one value may be written in many ways. */
function scaling(values: DataSet | undefined): string {
    return [SLOPE, INTERCEPT].map((tag) => values?.floatString(tag)).join();
}

async function volume(file: File): Promise<OwnFile> {
    const bytes = blank(new Uint8Array(await file.arrayBuffer()));
    if (!isPlaced(bytes)) throw new Error(`The files of the series ${file.name} do not say where in space they lie.`);
    return { name: file.name, bytes };
}

async function convert(files: File[]): Promise<File[]> {
    const program = new Dcm2niix();
    try {
        await program.init();
        return await program.input(numbered(files)).b("n").z("n").f("%s_%d").run();
    } catch {
        throw new Error(`There is no DICOM series among the ${files.length} files that dcm2niix can read.`);
    } finally {
        // Its file system keeps what it was given.
        program.worker?.terminate();
    }
}

/** Files of several folders may have one name. */
function numbered(files: File[]): File[] {
    return files.map((file, index) => new File([file], `${index}_${file.name}`));
}
