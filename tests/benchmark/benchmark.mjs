// Milliseconds a slice of the viewer's CPU path and of onnxruntime-web, on the same network in the same page.
//
//     node benchmark.mjs [--keep DIR] [--json FILE] [nano] [vit_b]

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

import { batch, inBrowser, makeNetwork, makeScan, names } from "./setup.mjs";

/** Voxels on which the two may differ, as a share. */
const MOST_DIFFERING = 1e-3;
/** How much is measured: batches in the scan, and times over it, the first of which only warms up. */
const amounts = { nano: [2, 21], vit_b: [1, 6] };

export function median(values) {
    const sorted = values.toSorted((one, other) => one - other);
    const middle = sorted.length / 2;
    return (sorted[Math.ceil(middle) - 1] + sorted[Math.floor(middle)]) / 2;
}

/** Figures of the passes over the scan. Throws unless both engines are the same network. */
export function judge(passes) {
    for (const { differing, total, voxels } of passes) {
        if (voxels.filter((count) => count > 0).length < 2) throw new Error("a mask of one label shows nothing");
        if (differing <= MOST_DIFFERING * total) continue;
        throw new Error(`no ratio of two networks: they differ on ${differing} of ${total} voxels`);
    }
    const [, ...measured] = passes;
    const figures = (engine) => {
        const slices = measured.flatMap(({ times }) => times[engine].map((time) => time / batch));
        return { median: median(slices), fastest: Math.min(...slices), batches: slices.length };
    };
    const [flapsam, onnxruntime] = ["flapsam", "onnxruntime"].map(figures);
    return {
        flapsam,
        onnxruntime,
        ratio: flapsam.median / onnxruntime.median,
        ratioOfFastest: flapsam.fastest / onnxruntime.fastest,
        differing: passes[0].differing,
        voxels: passes[0].total,
        byClass: passes[0].voxels,
    };
}

/** So many passes of both engines over a scan. */
export function measure(network, scan, times) {
    return inBrowser(network, scan, async (loaded, browser) => {
        const passes = [];
        for (let time = 0; time < times; time++) passes.push(await loaded.evaluate(({ run }) => run()));
        const about = await loaded.evaluate(({ loading, memory }) => ({ loading, memory: memory() }));
        const { name, side } = network;
        return { network: name, side, browser, ...about, ...judge(passes) };
    });
}

function row({ network, side, flapsam, onnxruntime, ratio, ratioOfFastest, differing, voxels }) {
    const time = ({ median, fastest }) => `${median.toFixed(1)} (${fastest.toFixed(1)})`;
    const [ours, theirs] = [time(flapsam), time(onnxruntime)];
    const ratios = `${ratio.toFixed(2)} (${ratioOfFastest.toFixed(2)})`;
    return `| ${network} at ${side} | ${ours} | ${theirs} | ${ratios} | ${differing} of ${voxels} |`;
}

async function main() {
    const options = { keep: { type: "string" }, json: { type: "string" } };
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    const unknown = positionals.find((name) => !names.includes(name));
    if (unknown) throw new Error(`there is no network '${unknown}'; name one of ${names.join(", ")}`);
    const folder = values.keep ? resolve(values.keep) : mkdtempSync(join(tmpdir(), "flapsam-benchmark-"));
    mkdirSync(folder, { recursive: true });
    const results = [];
    try {
        for (const name of positionals.length ? positionals : names) {
            const network = makeNetwork(name, folder);
            const [batches, times] = amounts[name];
            results.push(await measure(network, makeScan(network, batches), times));
        }
    } finally {
        if (!values.keep) rmSync(folder, { recursive: true, force: true });
    }
    const lock = JSON.parse(readFileSync(join(import.meta.dirname, "package-lock.json"), "utf8"));
    const about = {
        processor: cpus()[0].model,
        cores: cpus().length,
        browser: results[0].browser,
        onnxruntime: lock.packages["node_modules/onnxruntime-web"].version,
    };
    console.log(`${about.processor}, ${about.cores} cores, Chromium ${about.browser}, one thread each.`);
    console.log("Milliseconds a slice: median (fastest).\n");
    console.log(`| network | flapsam | onnxruntime-web ${about.onnxruntime} | ratio | voxels that differ |`);
    console.log("| --- | --- | --- | --- | --- |");
    for (const result of results) console.log(row(result));
    console.log();
    for (const { network, loading, memory } of results) {
        const [ours, theirs] = [loading.flapsam, loading.onnxruntime].map((time) => (time / 1000).toFixed(1));
        const megabytes = Math.round(memory / 1e6);
        console.log(`${network}: loaded in ${ours} s and ${theirs} s; flapsam's memory is then ${megabytes} MB.`);
    }
    if (values.json) writeFileSync(values.json, `${JSON.stringify({ ...about, results }, null, 4)}\n`);
}

if (import.meta.main ?? resolve(process.argv[1]) === import.meta.filename) await main();
