/** What is shown and can be segmented: a case of the run, or a scan of the user's. */

import { keyOf } from "./cases";
import type { Current } from "./current";
import type { OwnFile } from "./files";
import type { Outcome, Promised } from "./protocol";
import { fetchBytes, type Case, type Run } from "./run";
import type { Recorded } from "./runhere";

export interface Shown {
    key: string;
    title: string;
    scan: Promised;
    site: string | undefined;
    truth: Uint8Array | null;
    native: Uint8Array | null;
    recorded: Recorded | null;
    /** The masks of runs beside this one, read when they are asked for. */
    others: Other[];
    own: boolean;
    outcome: Outcome | null;
    /** Of the adapter that made the outcome. */
    adapterSha256: string | null;
}

/** What another run made of the case. */
export interface Other {
    name: string;
    dice: number[];
    mask: () => Promise<Uint8Array>;
}

/** What reads a case of the run, or a scan of the user's, of that name; null if there is none. */
export function loaderOf({ run, own }: Current, key: string): ((signal?: AbortSignal) => Promise<Shown>) | null {
    const of = run.cases.find((one) => keyOf(one) === key);
    const file = own.get(key);
    if (of) return (signal) => caseOf(run, of, signal);
    return file ? async () => ownCase(key, file) : null;
}

function ownCase(key: string, file: OwnFile): Shown {
    const scan = { bytes: file.bytes };
    const none = { truth: null, native: null, recorded: null, others: [], outcome: null, adapterSha256: null };
    return { key, title: file.name, scan, site: undefined, own: true, ...none };
}

async function caseOf(run: Run, of: Case, signal?: AbortSignal): Promise<Shown> {
    const [scan, truth, native] = await Promise.all([
        fetchBytes(of.image.path, signal),
        fetchBytes(of.truth.path, signal),
        of.prediction && fetchBytes(of.prediction.path, signal),
    ]);
    return {
        key: keyOf(of),
        title: `${run.name}_${of.site}_${of.id}`,
        scan: { bytes: scan, sha256: of.image.sha256 },
        site: of.site,
        truth,
        native,
        // Clients alone are judged by all of their models; computed here is the site's own.
        recorded: { of: run.setting === "alone" ? "mean of the clients' models" : "native", dice: of.dice },
        others: othersOf(run, of),
        own: false,
        outcome: null,
        adapterSha256: null,
    };
}

function othersOf(run: Run, of: Case): Other[] {
    const other = (index: number): Other[] => {
        const made = of.beside[index];
        const name = run.beside[index]?.name;
        return made && name ? [{ name, dice: made.dice, mask: () => fetchBytes(made.prediction.path) }] : [];
    };
    return run.beside.flatMap((_, index) => other(index));
}

/** The browser's mask on the grid that it is compared on. */
export function computed({ outcome }: Shown): Uint8Array | null {
    return outcome && (outcome.gridMask ?? outcome.mask);
}

/** What files about a scan are called. */
export function fileName(title: string): string {
    return title.replace(/\.nii(\.gz)?$/i, "").replaceAll(/[^\w.-]+/g, "_");
}
