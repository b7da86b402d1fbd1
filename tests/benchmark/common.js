// What both pages need.

import * as ort from "/onnxruntime/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1;

export { ort };

export const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());

/** What work comes to, and how long it took, milliseconds. */
export async function timed(work) {
    const start = performance.now();
    const value = await work();
    return [value, performance.now() - start];
}
