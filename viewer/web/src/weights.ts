/** Weights: fetched with progress, and kept in the browser's private file system under their checksum. */

export interface Remote {
    url: string;
    sha256: string;
    /** Size. */
    bytes: number;
}

/** A file did not come; whether it is worth another try, the user knows best. */
class FetchError extends Error {
    override name = "fetch";
}

/** Smaller files are fetched again as fast as they are found. */
const KEPT_FROM = 1_000_000;

const FOLDER = "weights";

/** A file's bytes. They may be damaged: whoever uses them checks the sha256 and calls `forget` if it is another. */
export async function fetchWeights(file: Remote, onProgress: (received: number) => void): Promise<Uint8Array> {
    const keep = file.bytes >= KEPT_FROM;
    const kept = keep ? await read(file) : null;
    if (kept) return kept;
    const bytes = await download(file, onProgress);
    if (keep) await write(file, bytes);
    return bytes;
}

/** Removes what is kept of a file. */
export async function forget({ sha256 }: Remote): Promise<void> {
    try {
        await (await folder())?.removeEntry(sha256);
    } catch {
        // It was not kept.
    }
}

/** How many bytes of weights are kept. */
export async function keptWeights(): Promise<number> {
    let bytes = 0;
    for await (const handle of (await folder())?.values() ?? []) {
        if (handle.kind === "file") bytes += (await (handle as FileSystemFileHandle).getFile()).size;
    }
    return bytes;
}

/** Removes all weights that are kept. */
export async function removeWeights(): Promise<void> {
    const root = await navigator.storage?.getDirectory?.();
    await root?.removeEntry(FOLDER, { recursive: true }).catch(() => {
        // None were kept.
    });
}

async function download({ url, bytes }: Remote, onProgress: (received: number) => void): Promise<Uint8Array> {
    const response = await fetch(url).catch(() => null);
    if (!response) throw new FetchError(`${url} cannot be fetched; is 'flapsam view' still running?`);
    if (!response.ok || !response.body) {
        throw new FetchError(`${url} cannot be fetched (${response.status}); was the run's folder moved or changed?`);
    }
    const whole = new Uint8Array(bytes);
    let received = 0;
    const reader = response.body.getReader();
    const next = () =>
        reader.read().catch(() => {
            throw new FetchError(`${url} was cut off after ${received} of ${bytes} bytes`);
        });
    for (let piece = await next(); !piece.done; piece = await next()) {
        if (received + piece.value.length > bytes) throw new FetchError(`${url} is longer than its ${bytes} bytes`);
        whole.set(piece.value, received);
        received += piece.value.length;
        onProgress(received);
    }
    return whole.subarray(0, received);
}

async function folder(): Promise<FileSystemDirectoryHandle | null> {
    // Private windows and insecure addresses have none.
    const root = await navigator.storage?.getDirectory?.();
    return root ? root.getDirectoryHandle(FOLDER, { create: true }) : null;
}

async function read({ sha256, bytes }: Remote): Promise<Uint8Array | null> {
    try {
        const handle = await (await folder())?.getFileHandle(sha256);
        const file = await handle?.getFile();
        return file?.size === bytes ? new Uint8Array(await file.arrayBuffer()) : null;
    } catch {
        return null;
    }
}

/** Keeping is a convenience: a full disk is no reason to fail. */
async function write(file: Remote, bytes: Uint8Array): Promise<void> {
    try {
        const handle = await (await folder())?.getFileHandle(file.sha256, { create: true });
        const stream = await handle?.createWritable();
        await stream?.write(bytes as Uint8Array<ArrayBuffer>);
        await stream?.close();
    } catch {
        await forget(file);
    }
}
