/** `run.json`: what `flapsam view` says of a run. Paths are relative to the page. */

import type { Remote } from "./weights";

export interface LinkedFile {
    path: string;
    sha256: string;
    bytes: number;
}

export interface Case {
    site: string;
    id: string;
    /** By foreground class: of the native prediction, or, of clients alone, the mean over their models. */
    dice: number[];
    /** The share of both surfaces within the run's tolerance, by class; nothing where it was not measured. */
    surfaceDice: number[];
    /** Millimetres, by class; null where one surface is missing. */
    hausdorff95Mm: (number | null)[];
    image: LinkedFile;
    truth: LinkedFile;
    /** Null if the run did not keep its masks. */
    prediction: LinkedFile | null;
    /** What each of the run's `beside` made of it; null where it kept no mask. */
    beside: ({ dice: number[]; prediction: LinkedFile } | null)[];
}

export interface Adapter extends LinkedFile {
    /** Whose it is; null if all sites share it. */
    site: string | null;
}

export interface Run {
    name: string;
    title: string;
    data: string;
    dataDescription: string;
    method: string;
    setting: string;
    seed: number;
    device: string;
    program: string;
    /** Background first. */
    classes: string[];
    resample: [number, number, number] | null;
    spacingMm: [number, number, number] | null;
    clip: [number, number] | null;
    sites: string[];
    base: LinkedFile;
    /** One, or each client's where they differ. */
    adapters: Adapter[];
    /** Further runs on the same data, to be looked at beside this one. */
    beside: { name: string; title: string }[];
    cases: Case[];
}

/** The run that lies beside the page. */
export async function fetchRun(): Promise<Run> {
    const text = new TextDecoder().decode(await fetchBytes("run.json"));
    const run = JSON.parse(text) as Run;
    if (![run.cases, run.classes, run.adapters, run.beside].every(Array.isArray)) {
        throw new Error("run.json is not one that this page can read; make it with 'flapsam view' of the same version");
    }
    return run;
}

/** The adapter for a site's scans. */
export function adapterOf(run: Run, site: string | undefined): Adapter {
    const own = run.adapters.find((one) => one.site === site) ?? run.adapters.find((one) => one.site === null);
    if (!own) throw new Error(`The run has no adapter for ${site ? `site ${site}` : "a scan of no site"}; choose a site.`);
    return own;
}

/** A file of the run, for the worker, whose own address is another. */
export function remote({ path, sha256, bytes }: LinkedFile): Remote {
    return { url: new URL(path, document.baseURI).href, sha256, bytes };
}

/** A file of the run. */
export async function fetchBytes(path: string, signal?: AbortSignal): Promise<Uint8Array> {
    let response: Response;
    try {
        response = await fetch(path, signal ? { signal } : {});
    } catch (error) {
        if (signal?.aborted) throw error;
        throw new Error(`${path} cannot be fetched; is 'flapsam view' still running?`);
    }
    if (!response.ok) {
        throw new Error(`${path} cannot be fetched (${response.status}); was the run's folder moved or changed?`);
    }
    return new Uint8Array(await response.arrayBuffer());
}
