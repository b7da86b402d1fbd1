// In the page: both engines on the same slices, batch by batch in turns.

import init, { Engine } from "/engine/flapsam_viewer.js";
import { bytes, ort, timed } from "./common.js";

/** The class of largest probability at each place; the lowest class wins a tie. */
function argMax(probabilities, [slices, classes, rows, columns]) {
    const area = rows * columns;
    const labels = new Uint8Array(slices * area);
    for (let slice = 0; slice < slices; slice++) {
        for (let place = 0; place < area; place++) {
            const start = slice * classes * area + place;
            let best = 0;
            for (let label = 1; label < classes; label++) {
                if (probabilities[start + label * area] > probabilities[start + best * area]) best = label;
            }
            labels[slice * area + place] = best;
        }
    }
    return labels;
}

/** The labels in a gzipped NIfTI mask. */
async function labelsOf(mask) {
    const stream = new Blob([mask]).stream().pipeThrough(new DecompressionStream("gzip"));
    const buffer = await new Response(stream).arrayBuffer();
    return new Uint8Array(buffer, new DataView(buffer).getFloat32(108, true));
}

/** Loads both engines; how long each took, milliseconds, and a function to run both on the scan. */
window.load = async ({ batch, side }) => {
    const wasm = await init();
    const files = ["base", "adapter", "onnx"].map((name) => bytes(`/files/${name}`));
    const [base, adapter, network] = await Promise.all(files);
    const engine = await Engine.open("cpu");
    const [{ classes }, flapsam] = await timed(() => engine.load(base, null, adapter, null));
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    const [session, onnxruntime] = await timed(() => ort.InferenceSession.create(network, options));
    const [scan, slices] = [await bytes("/files/scan"), new Float32Array((await bytes("/files/slices")).buffer)];
    const length = batch * side * side;

    async function onOnnxruntime(start) {
        const values = slices.subarray(start * side * side, start * side * side + length);
        const input = new ort.Tensor("float32", values, [batch, 1, side, side]);
        const { probabilities } = await session.run({ slices: input });
        return argMax(probabilities.data, probabilities.dims);
    }

    /** Once over the scan. Each batch of ours is followed by one of theirs, so that both meet the same machine. */
    async function run() {
        const times = { flapsam: [], onnxruntime: [] };
        const theirs = new Uint8Array(slices.length);
        let start;
        let last = 0;
        const progress = async (done) => {
            if (done > 0) {
                times.flapsam.push(performance.now() - start);
                const [labels, time] = await timed(() => onOnnxruntime(last));
                times.onnxruntime.push(time);
                theirs.set(labels, last * side * side);
                last = done;
            }
            start = performance.now();
            return true;
        };
        const { mask } = await engine.segment(scan, null, null, progress);
        const ours = await labelsOf(mask);
        const differing = ours.reduce((count, label, voxel) => count + (label !== theirs[voxel]), 0);
        const voxels = classes.map(() => 0);
        for (const label of ours) voxels[label]++;
        return { times, differing, total: ours.length, voxels };
    }

    return { loading: { flapsam, onnxruntime }, run, memory: () => wasm.memory.buffer.byteLength };
};
