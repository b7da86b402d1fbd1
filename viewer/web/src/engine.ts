/** The page's side of the worker. */

import type { Comparison, DeviceReport, SelfTest, Slice } from "../wasm/flapsam_viewer";
import type {
    Answer,
    Choice,
    Drawn,
    Failure,
    Job,
    Kept,
    Look,
    Outcome,
    Pair,
    Progress,
    Question,
    Reply,
    Request,
    Seen,
} from "./protocol";

/** How long a step may take to hear that it is cancelled; afterwards the worker is ended. */
const PATIENCE_MS = 5000;

/** A failure that the worker told. */
export class EngineError extends Error {
    constructor(readonly kind: string, message: string) {
        super(message);
    }
}

type Waiting = { request: Request; resolve: (value: never) => void; reject: (error: Error) => void };
type Asked =
    | { kind: "open"; choice: Choice }
    | { kind: "test"; choice: Choice }
    | { kind: "run"; job: Job }
    | { kind: "compare"; pair: Pair }
    | { kind: "restate"; file: Uint8Array }
    | { kind: "look"; look: Look }
    | { kind: "correct"; drawn: Drawn }
    | { kind: "keep"; kept: Kept }
    | { kind: "ask"; question: Question }
    | { kind: "encode"; seen: Seen };

export class Engine {
    private worker: Worker | null = null;
    private waiting = new Map<number, Waiting>();
    private last = 0;
    private running: number | null = null;
    private asking: number | null = null;
    private encoding: number | null = null;
    /** Told of the run, or of the question. */
    private onProgress: (progress: Progress) => void = () => {};
    private onEncoding: (progress: Progress) => void = () => {};
    private onFetching: (received: number, of: number) => void = () => {};

    /** `onDevice` hears of every device that is opened. */
    constructor(private readonly onDevice: (report: DeviceReport) => void) {}

    /** Opens a device, to say what it is. */
    open(choice: Choice): Promise<DeviceReport> {
        return this.ask({ kind: "open", choice });
    }

    /** Computes a network whose answer is known. */
    test(choice: Choice): Promise<SelfTest> {
        return this.ask({ kind: "test", choice });
    }

    compare(pair: Pair): Promise<Comparison> {
        return this.ask({ kind: "compare", pair });
    }

    /** A NIfTI file as the engine reads it: what is drawn lies where it is computed. */
    restate(file: Uint8Array): Promise<Uint8Array> {
        return this.ask({ kind: "restate", file });
    }

    look(look: Look): Promise<Slice> {
        return this.ask({ kind: "look", look });
    }

    /** A mask as it is drawn, gzipped, with its scan's header. */
    correct(drawn: Drawn): Promise<Uint8Array> {
        return this.ask({ kind: "correct", drawn });
    }

    /** A mask with an answer in it. */
    keep(kept: Kept): Promise<Uint8Array> {
        return this.ask({ kind: "keep", kept });
    }

    /** Asks a base without adapter what a prompt means; null if that was given up. One at a time. */
    async question(question: Question, onEncoding: (progress: Progress) => void): Promise<Reply | null> {
        this.onEncoding = onEncoding;
        this.asking = this.last + 1;
        try {
            return await this.ask<Reply | null>({ kind: "ask", question });
        } finally {
            this.asking = null;
        }
    }

    /** Encodes a slice before anybody asks about it; false if something else came between. One at a time. */
    async encode(seen: Seen): Promise<boolean> {
        this.encoding = this.last + 1;
        try {
            return await this.ask<boolean>({ kind: "encode", seen });
        } finally {
            this.encoding = null;
        }
    }

    /** Segments a scan; null if it was cancelled. One at a time. */
    async run(
        job: Job,
        onProgress: (progress: Progress) => void,
        onFetching: (received: number, of: number) => void,
    ): Promise<Outcome | null> {
        if (this.running !== null) throw new EngineError("request", "a segmentation is running already");
        this.onProgress = onProgress;
        this.onFetching = onFetching;
        this.running = this.last + 1;
        try {
            return await this.ask<Outcome | null>({ kind: "run", job });
        } finally {
            this.running = null;
        }
    }

    /** Asks the run to stop; a worker that does not hear is ended, and the next request starts another one. */
    cancel(): void {
        this.stop(this.running);
    }

    /** Gives up on a question, and on what is encoded ahead, likewise. */
    abandon(): void {
        this.stop(this.asking);
        this.stop(this.encoding);
    }

    private stop(id: number | null): void {
        const waiting = id === null ? undefined : this.waiting.get(id);
        if (id === null || !waiting) return;
        this.worker?.postMessage({ kind: "cancel", id } satisfies Request);
        setTimeout(() => {
            if (!this.waiting.delete(id)) return;
            waiting.resolve(null as never);
            this.forgetEncoding();
            // What waits behind it goes to another worker.
            this.worker?.terminate();
            this.worker = null;
            for (const { request } of this.waiting.values()) this.start().postMessage(request);
        }, PATIENCE_MS);
    }

    /** What is encoded ahead is not worth another worker's time. */
    private forgetEncoding(): void {
        for (const [id, { request, resolve }] of this.waiting) {
            if (request.kind !== "encode") continue;
            this.waiting.delete(id);
            resolve(false as never);
        }
    }

    private ask<Value>(asked: Asked): Promise<Value> {
        const id = ++this.last;
        return new Promise<Value>((resolve, reject) => {
            const request: Request = { ...asked, id };
            this.waiting.set(id, { request, resolve: resolve as Waiting["resolve"], reject });
            this.start().postMessage(request);
        });
    }

    private start(): Worker {
        if (!this.worker) {
            this.worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
            this.worker.onmessage = (event: MessageEvent<Answer>) => this.hear(event.data);
            this.worker.onerror = (event) => {
                event.preventDefault();
                this.end(event.message || "the worker could not be started");
            };
        }
        return this.worker;
    }

    private hear(answer: Answer): void {
        switch (answer.kind) {
            case "device":
                return this.onDevice(answer.report);
            case "progress":
                return (answer.id === this.asking ? this.onEncoding : this.onProgress)(answer.progress);
            case "fetching":
                return this.onFetching(answer.received, answer.of);
            case "done":
                this.waiting.get(answer.id)?.resolve(answer.value as never);
                this.waiting.delete(answer.id);
                return;
            case "failed":
                return this.fail(answer.id, answer.failure);
        }
    }

    private fail(id: number, { kind, message }: Failure): void {
        this.waiting.get(id)?.reject(new EngineError(kind, message));
        this.waiting.delete(id);
        // After a crash, or with a device that was lost, only a new worker helps.
        if (kind === "crash" || kind === "device") this.end(message);
    }

    private end(why: string): void {
        this.worker?.terminate();
        this.worker = null;
        const waiting = [...this.waiting.values()];
        this.waiting.clear();
        waiting.forEach(({ reject }) => reject(new EngineError("crash", why)));
    }
}
