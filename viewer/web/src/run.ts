/** `run.json`: what `flapsam view` says of a run. Paths are relative to the page. */

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
    image: LinkedFile;
    truth: LinkedFile;
    /** Null if the run did not keep its masks. */
    prediction: LinkedFile | null;
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
    cases: Case[];
}

/** The run that lies beside the page. */
export async function fetchRun(): Promise<Run> {
    const text = new TextDecoder().decode(await fetchBytes("run.json"));
    const run = JSON.parse(text) as Run;
    if (![run.cases, run.classes, run.adapters].every(Array.isArray)) {
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

/** Mean over the classes; the order of the list. */
export function meanDice(of: Case): number {
    return of.dice.reduce((sum, dice) => sum + dice, 0) / Math.max(1, of.dice.length);
}

/** Sites in order of their names, each with its cases, worst first. */
export function bySite(run: Run): [string, Case[]][] {
    const sites = new Map<string, Case[]>();
    for (const one of run.cases) {
        sites.set(one.site, [...(sites.get(one.site) ?? []), one]);
    }
    const sorted = [...sites].sort(([one], [other]) => one.localeCompare(other));
    return sorted.map(([site, cases]) => [site, cases.sort((one, other) => meanDice(one) - meanDice(other))]);
}
