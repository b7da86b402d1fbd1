/** The worker: WebAssembly runs here, so that the page stays responsive. */

import init, { compare, corrected, Engine, kept, lastPanic, restated, slice, sliceNumbered, type NetworkReport } from "../wasm/flapsam_viewer";
import type { Answer, Choice, Failure, Job, Outcome, Promised, Question, Reply, Request, Seen } from "./protocol";
import { fetchWeights, forget, type Remote } from "./weights";

const ready = init();
let opened: { choice: Choice; engine: Engine } | null = null;
/** The network on the device; a base without adapter has no report. */
let loaded: { key: string; network: NetworkReport | null } | null = null;
/** Requests that are to stop. */
const cancelled = new Set<number>();
/** How many wait for the one that is served. */
let waiting = 0;
/** One request after the other: a device is opened once, and none is put away while it runs. */
let queue: Promise<unknown> = ready.catch(() => {});

type Asked = Exclude<Request, { kind: "cancel" }>;

self.onmessage = (event: MessageEvent<Request>) => {
    const request = event.data;
    if (request.kind === "cancel") {
        cancelled.add(request.id);
        return;
    }
    waiting++;
    queue = queue.then(() => {
        waiting--;
        return serve(request);
    });
};

async function serve(request: Asked): Promise<void> {
    try {
        await ready;
        tell({ kind: "done", id: request.id, value: await answer(request) });
    } catch (error) {
        tell({ kind: "failed", id: request.id, failure: failure(error) });
    }
}

async function answer(request: Asked) {
    switch (request.kind) {
        case "open":
            return (await open(request.choice)).device;
        case "test":
            return (await open(request.choice)).selfTest();
        case "compare": {
            const { one, other, classes, resample, spacingMm } = request.pair;
            return compare(
                one,
                other,
                classes,
                resample && new Uint32Array(resample),
                spacingMm && new Float64Array(spacingMm),
            );
        }
        case "restate":
            return restated(request.file);
        case "run":
            return run(request.id, request.job);
        case "look": {
            const { scan, plane, at } = request.look;
            if (typeof at === "number") return sliceNumbered(scan.bytes, scan.sha256, plane, at);
            return slice(scan.bytes, scan.sha256, plane, ...at);
        }
        case "correct":
            return corrected(request.drawn.scan.bytes, request.drawn.drawn, request.drawn.classes);
        case "keep": {
            const { scan, drawn, slice, inside, label, classes } = request.kept;
            return kept(scan.bytes, drawn ?? undefined, slice.plane, slice.number, inside, label, classes);
        }
        case "ask":
            return ask(request.id, request.question);
        case "encode":
            return encode(request.id, request.seen);
    }
}

/** Lets messages in; whether the request may go on. */
async function pause(id: number): Promise<boolean> {
    await new Promise((resolve) => setTimeout(resolve));
    return !cancelled.has(id);
}

async function open(choice: Choice): Promise<Engine> {
    if (opened?.choice !== choice) {
        opened?.engine.free();
        opened = null;
        loaded = null;
        opened = { choice, engine: await Engine.open(choice) };
    }
    tell({ kind: "device", report: opened.engine.device });
    return opened.engine;
}

async function run(id: number, job: Job): Promise<Outcome | null> {
    const engine = await open(job.choice);
    const network = await load(engine, job);
    let start = performance.now();
    let slices = 0;
    let milliseconds = 0;
    const progress = async (done: number, of: number) => {
        if (done === 0) start = performance.now();
        slices = of;
        milliseconds = performance.now() - start;
        tell({ kind: "progress", id, progress: { done, of, milliseconds } });
        return pause(id);
    };
    const found = await engine.segment(job.scan.bytes, job.scan.sha256, job.site, progress);
    return found && { ...found, slices, milliseconds, device: engine.device, network };
}

async function ask(id: number, { choice, base, slice, window, prompt }: Question): Promise<Reply | null> {
    const engine = await open(choice);
    await loadBase(engine, base);
    const start = performance.now();
    const progress = (done: number, of: number) => {
        tell({ kind: "progress", id, progress: { done, of, milliseconds: performance.now() - start } });
        return pause(id);
    };
    const found = await engine.ask(slice.values, new Uint32Array(slice.pixels), new Float32Array(window), prompt, progress);
    return found && { ...found, milliseconds: performance.now() - start };
}

async function encode(id: number, { choice, base, slice, window }: Seen): Promise<boolean> {
    const goOn = async () => (await pause(id)) && waiting === 0;
    const engine = await open(choice);
    await loadBase(engine, base);
    return engine.encode(slice.values, new Uint32Array(slice.pixels), new Float32Array(window), goOn);
}

/** Loads a network unless it is there already. A user's own adapter has no promised checksum and is loaded each time. */
async function load(engine: Engine, job: Job): Promise<NetworkReport> {
    const key = "url" in job.adapter ? `${job.base.sha256} ${job.adapter.sha256}` : "";
    if (loaded?.network && key && loaded.key === key) return loaded.network;
    const [base, adapter] = [await fetched(job.base), await fetched(job.adapter)];
    return put(key, job.base, () => engine.load(base.bytes, base.sha256, adapter.bytes, adapter.sha256));
}

/** Loads a base without adapter unless it is there already. */
async function loadBase(engine: Engine, remote: Remote): Promise<void> {
    if (loaded?.key === remote.sha256) return;
    const base = await fetched(remote);
    await put(remote.sha256, remote, () => {
        engine.loadBase(base.bytes, base.sha256);
        return null;
    });
}

async function put<Report extends NetworkReport | null>(key: string, base: Remote, act: () => Report): Promise<Report> {
    loaded = null;
    try {
        const network = act();
        loaded = { key, network };
        return network;
    } catch (error) {
        // What is kept may be damaged; the next attempt fetches it again.
        await forget(base);
        throw error;
    }
}

async function fetched(file: Remote | Promised): Promise<Promised> {
    if (!("url" in file)) return file;
    const of = file.bytes;
    const bytes = await fetchWeights(file, (received) => tell({ kind: "fetching", received, of }));
    return { bytes, sha256: file.sha256 };
}

/** Errors of ours have a kind as their name; all others mean that WebAssembly has stopped for good. */
function failure(error: unknown): Failure {
    const known = ["checksum", "fetch", "file", "limit", "memory", "device", "request"];
    const { name, message } = error instanceof Error ? error : { name: "", message: String(error) };
    if (known.includes(name)) return { kind: name, message };
    return { kind: "crash", message: lastPanicOr(message) };
}

function lastPanicOr(message: string): string {
    try {
        return lastPanic() || message;
    } catch {
        return message;
    }
}

function tell(answer: Answer): void {
    self.postMessage(answer);
}
