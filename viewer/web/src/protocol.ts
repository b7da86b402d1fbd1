/** What the page and its worker say to each other. */

import type { Comparison, DeviceReport, NetworkReport, Segmented } from "../wasm/flapsam_viewer";
import type { Remote } from "./weights";

export type Choice = "auto" | "webgpu" | "cpu";

/** Bytes, and the sha256 that they are promised to have. */
export interface Promised {
    bytes: Uint8Array;
    sha256?: string | undefined;
}

export interface Job {
    choice: Choice;
    base: Remote;
    /** The run's, or the user's own. */
    adapter: Remote | Promised;
    scan: Promised;
    site?: string | undefined;
}

export interface Pair {
    one: Uint8Array;
    other: Uint8Array;
    classes: number;
    resample: [number, number, number] | null;
}

export type Request =
    | { kind: "open"; id: number; choice: Choice }
    | { kind: "run"; id: number; job: Job }
    | { kind: "compare"; id: number; pair: Pair }
    /** Stops the run of that id. */
    | { kind: "cancel"; id: number };

/** How far a run is. */
export interface Progress {
    done: number;
    of: number;
    /** Since the first slice began. */
    milliseconds: number;
}

/** What a run came to. */
export interface Outcome extends Segmented {
    slices: number;
    milliseconds: number;
    device: DeviceReport;
    network: NetworkReport;
}

/** One word for what went wrong: checksum, fetch, file, limit, memory, device, request, or crash. */
export interface Failure {
    kind: string;
    message: string;
}

export type Answer =
    | { kind: "device"; report: DeviceReport }
    | { kind: "fetching"; received: number; of: number }
    | { kind: "progress"; progress: Progress }
    | { kind: "done"; id: number; value: DeviceReport | Comparison | Outcome | null }
    | { kind: "failed"; id: number; failure: Failure };
