/** What the page and its worker say to each other. */

import type {
    Comparison,
    DeviceReport,
    Masks,
    NetworkReport,
    Plane,
    Prompt,
    Segmented,
    SelfTest,
    Slice,
} from "../wasm/flapsam_viewer";
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
    /** The grid of a run's masks, if it is not the scans' own: by its number of voxels, or by their distance. */
    resample: [number, number, number] | null;
    spacingMm: [number, number, number] | null;
}

/** A scan's slice of a plane at a place, mm, or of a number from 1. */
export interface Look {
    scan: Promised;
    plane: Plane;
    at: [number, number, number] | number;
}

/** A mask as it is drawn, and the scan whose header it shall have. */
export interface Drawn {
    scan: Promised;
    drawn: Uint8Array;
    /** Background included. */
    classes: number;
}

/** An answer about a slice that goes into a mask, or begins one. */
export interface Kept {
    scan: Promised;
    drawn: Uint8Array | null;
    slice: Slice;
    /** Pixel by pixel; 1 becomes the label. */
    inside: Uint8Array;
    label: number;
    classes: number;
}

/** A slice that a base without adapter may be asked about. */
export interface Seen {
    choice: Choice;
    base: Remote;
    slice: Slice;
    window: [number, number];
}

/** What it is asked. */
export interface Question extends Seen {
    prompt: Prompt;
}

/** Its answer, and how long it took. */
export interface Reply extends Masks {
    milliseconds: number;
}

export type Request =
    | { kind: "open"; id: number; choice: Choice }
    | { kind: "test"; id: number; choice: Choice }
    | { kind: "run"; id: number; job: Job }
    | { kind: "compare"; id: number; pair: Pair }
    /** A NIfTI file as the engine reads it, for NiiVue, which reads some headers otherwise. */
    | { kind: "restate"; id: number; file: Uint8Array }
    | { kind: "look"; id: number; look: Look }
    | { kind: "correct"; id: number; drawn: Drawn }
    | { kind: "keep"; id: number; kept: Kept }
    | { kind: "ask"; id: number; question: Question }
    /** Encodes a slice before anybody asks about it, while nothing else is to be done; whether it came to that. */
    | { kind: "encode"; id: number; seen: Seen }
    /** Stops the request of that id. */
    | { kind: "cancel"; id: number };

/** How far a run is, in slices, or the encoding of a slice. */
export interface Progress {
    done: number;
    of: number;
    /** Since the first part began. */
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
    | { kind: "progress"; id: number; progress: Progress }
    | { kind: "done"; id: number; value: DeviceReport | SelfTest | Comparison | Outcome | Slice | Reply | Uint8Array | boolean | null }
    | { kind: "failed"; id: number; failure: Failure };
