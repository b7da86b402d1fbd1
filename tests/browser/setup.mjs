// A fresh run, its page, and a real browser.
//
// FLAPSAM names the program, CHROMIUM the browser, FLAPSAM_PYTHON a Python with nibabel (tests/run.sh sets all three).

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after } from "node:test";
import { gzipSync } from "node:zlib";
import { chromium } from "playwright-core";

export const root = resolve(import.meta.dirname, "../..");
const program = process.env.FLAPSAM ?? join(root, "target/release/flapsam");
const flags = ["--no-sandbox"];
/** WebGPU on Chromium's own software adapter: the same everywhere. */
const webgpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

export const folder = mkdtempSync(join(tmpdir(), "flapsam-browser-"));
const open = [];
after(async () => {
    for (const close of open.reverse()) await close();
    rmSync(folder, { recursive: true, force: true });
});

/** Runs the program, from the repository's root; its standard output. */
export function flapsam(...args) {
    return execFileSync(program, args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Trained for three short rounds, so that its masks hold kidneys and tumours in the wrong places too. */
function makeRun() {
    const data = join(folder, "data");
    flapsam("phantom", "--data", data);
    const config = join(folder, "browser.toml");
    const base = join(root, "golden/phantom/quick/methods/flap_sam");
    writeFileSync(config, `extends = "${base}"\nrounds = 3\ncases_per_site = [6, 1]\n`);
    flapsam("run", config, "--data", data, "--out", join(folder, "runs"));
    return { data, path: join(folder, "runs/browser-1") };
}

export const run = makeRun();
export const metrics = JSON.parse(readFileSync(join(run.path, "metrics.json"), "utf8"));

/** Starts `flapsam view` on a free port; its address. */
export async function serve(...more) {
    const args = ["view", run.path, "--data", run.data, "--port", "0", "--no-open", "--json", ...more];
    const server = spawn(program, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
    open.push(() => server.kill());
    let text = "";
    for await (const piece of server.stdout) {
        text += piece;
        if (text.includes("}")) return JSON.parse(text).url;
    }
    throw new Error("flapsam view ended");
}

export const url = await serve();

async function launch(args) {
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    const browser = await chromium.launch({ executablePath, args: [...flags, ...args] });
    open.push(() => browser.close());
    return browser;
}

const browsers = { webgpu: await launch(webgpu), none: null };

/**
 * A page that has drawn its first case. `prepare` may change it before it loads; `gpu` is whether there is WebGPU.
 * Nothing may be thrown in it that the page does not show. `offline` is whether the page may be kept for later: it then
 * answers what tests would answer in its place.
 */
export async function visit(test, { query = "", prepare = async () => {}, gpu = true, at = url, drawn = true, offline = false } = {}) {
    if (!gpu) browsers.none ??= await launch(["--disable-features=WebGPU"]);
    const browser = gpu ? browsers.webgpu : browsers.none;
    const serviceWorkers = offline ? "allow" : "block";
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, acceptDownloads: true, serviceWorkers });
    test.after(() => context.close());
    // A machine may have much else to do.
    context.setDefaultTimeout(120_000);
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    const page = await context.newPage();
    // The machine may be busy with other work.
    page.setDefaultTimeout(120_000);
    const thrown = [];
    page.on("pageerror", (error) => thrown.push(error.stack));
    test.after(() => assert.deepEqual(thrown, []));
    await prepare(page);
    await page.goto(at + query);
    if (drawn) await page.locator("#slice-at").filter({ hasText: /\d+ of \d+/ }).waitFor();
    return page;
}

/** Adds a script in front of the worker's own. */
export async function inWorker(page, script) {
    await page.route("**/assets/worker-*.js", async (route) => {
        const answer = await route.fetch();
        await route.fulfill({ response: answer, body: `${script}\n${await answer.text()}` });
    });
}

/** For `inWorker`: WebGPU with limits that no network fits into. */
export const SMALL_LIMITS = `
    for (const name of ["maxStorageBufferBindingSize", "maxBufferSize"]) {
        Object.defineProperty(GPUSupportedLimits.prototype, name, { get: () => 100000 });
    }`;

/** Forces a device and waits until the page names it: a software adapter may go on with what was cancelled for a while. */
export async function choose(page, device, name) {
    await page.locator(`#device [value=${device}]`).check({ force: true });
    await page.locator("#device .why").filter({ hasText: name }).waitFor({ timeout: 90_000 });
}

/** Presses Segment and waits for the end; what the page then says. */
export async function segment(page, timeout = 120_000) {
    await page.click("#segment");
    const ended = page.locator("#status").filter({ hasText: /slices in|did not finish/ });
    await ended.waitFor({ timeout });
    return ended.textContent();
}

/** The message of a notice. */
export async function notice(page, topic) {
    const found = page.locator(`.notice[data-topic="${topic}"] p`);
    await found.waitFor({ timeout: 30_000 });
    return found.textContent();
}

/** Opens a menu of the toolbar, if it is not open. */
export async function menu(page, name) {
    const found = page.locator("details.menu").filter({ hasText: name });
    if (!(await found.evaluate((one) => one.open))) await found.locator("summary").click();
}

/** Colours of the canvas: how many there are, and a sum that changes with any of them. */
export async function pixels(page) {
    const picture = (await page.locator("#canvas").screenshot()).toString("base64");
    return page.evaluate(async (text) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const image = await createImageBitmap(new Blob([bytes]));
        const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
        context.drawImage(image, 0, 0);
        const values = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
        const sum = values.reduce((sum, value) => (Math.imul(sum, 31) + value) | 0, 0);
        return { colours: new Set(values).size, sum };
    }, picture);
}

/** The share of equal voxels that the page tells, and how many differ. */
export async function agreement(page) {
    const text = await page.locator('[data-fact="agreement"]').textContent();
    return { percent: Number.parseFloat(text), text };
}

/** A NIfTI-1 file of 16-bit integers, gzipped. With `count`, it holds only so many voxels of those that it claims. */
export function nifti(dims, value = (index) => (index * 37) % 400, count = dims.reduce((all, side) => all * side, 1)) {
    const header = Buffer.alloc(352);
    header.writeInt32LE(348, 0);
    header.writeInt16LE(dims.length, 40);
    for (let axis = 0; axis < 7; axis++) header.writeInt16LE(dims[axis] ?? 1, 42 + 2 * axis);
    header.writeInt16LE(4, 70);
    header.writeInt16LE(16, 72);
    for (let axis = 0; axis < 4; axis++) header.writeFloatLE(axis ? 1.5 : 1, 76 + 4 * axis);
    header.writeFloatLE(352, 108);
    header.writeFloatLE(1, 112);
    header.writeInt16LE(1, 254);
    for (let axis = 0; axis < 3; axis++) header.writeFloatLE(1.5, 280 + 16 * axis + 4 * axis);
    header.write("n+1\0", 344, "latin1");
    const voxels = Int16Array.from({ length: count }, (_, index) => value(index));
    return gzipSync(Buffer.concat([header, Buffer.from(voxels.buffer)]));
}

/** Drops a file on the images, as a user does. */
export async function drop(page, name, bytes) {
    await dropAll(page, [[name, bytes]]);
}

/** Drops files with their names. */
export async function dropAll(page, files) {
    const held = await page.evaluateHandle((files) => {
        const transfer = new DataTransfer();
        for (const [name, text] of files) {
            const data = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([data], name));
        }
        return transfer;
    }, files.map(([name, bytes]) => [name, bytes.toString("base64")]));
    const target = page.locator("#holder");
    await target.dispatchEvent("dragover", { dataTransfer: held });
    await target.dispatchEvent("drop", { dataTransfer: held });
}

/** Drops a folder on the images, as a user does: what scripts make has no folders. */
export async function dropFolder(page, path) {
    const devtools = await page.context().newCDPSession(page);
    const { x, y } = await page.locator("#holder").boundingBox();
    const data = { items: [], files: [path], dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"]) {
        await devtools.send("Input.dispatchDragEvent", { type, x: x + 50, y: y + 50, data });
    }
}

/** Downloads the mask; where it lies. */
export async function saveMask(page, name) {
    const waiting = page.waitForEvent("download");
    await page.click("#save");
    const path = join(folder, name);
    await (await waiting).saveAs(path);
    return path;
}

/** Says why a test does nothing, as `skip` in tests/tests/common does. */
export function skip(test, why, couldBeSetUp) {
    test.diagnostic(`SKIPPED: ${why}`);
    const file = process.env.FLAPSAM_SKIPS;
    if (!file) return;
    if (couldBeSetUp) throw new Error(`tests/run.sh should have set this up: ${why}`);
    appendFileSync(file, `${why}\n`);
}

/** Runs Python with nibabel, whose script prints JSON; null (and the test says so) without one. */
export function python(test, script, ...args) {
    const interpreter = process.env.FLAPSAM_PYTHON;
    if (!interpreter) {
        skip(test, "FLAPSAM_PYTHON names no Python; tests/run.sh sets one up", true);
        return null;
    }
    return JSON.parse(execFileSync(interpreter, ["-c", script, ...args], { encoding: "utf8" }));
}

/** A file that some machines hold beside the repository; null (and the test says so) elsewhere. */
export function shared(test, name) {
    const path = join(root, "../shared", name);
    if (existsSync(path)) return path;
    skip(test, `there is no ../shared/${name}`, false);
    return null;
}
