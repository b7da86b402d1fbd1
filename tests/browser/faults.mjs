// What goes wrong is said, with a way on.

import assert from "node:assert/strict";
import { test } from "node:test";

import { agreement, choose, drop, inWorker, nifti, notice, pixels, segment, SMALL_LIMITS, visit } from "./setup.mjs";

/** Segments and returns what the page says when that fails. */
async function refusal(page) {
    await segment(page);
    assert.equal(await page.locator("#status").textContent(), "It did not finish.");
    assert.ok(await page.locator("#segment").isVisible());
    return notice(page, "run");
}

test("a base of another checksum is refused, and fetched again", async (t) => {
    const page = await visit(t);
    await choose(page, "cpu", "You chose the CPU");
    const spoilt = async (route) => {
        const answer = await route.fetch();
        const body = await answer.body();
        body[body.length - 1] ^= 1;
        await route.fulfill({ response: answer, body });
    };
    await page.route("**/base.safetensors", spoilt);
    assert.match(await refusal(page), /base checkpoint has the sha256 [0-9a-f]{64}, not [0-9a-f]{64}/);
    await page.unroute("**/base.safetensors", spoilt);
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator("#result table").waitFor({ timeout: 60_000 });
    assert.ok((await agreement(page)).percent >= 99.9);
});

const scan = nifti([32, 32, 6]);
const BAD = [
    ["a truncated file", scan.subarray(0, scan.length / 2), /cut off|damaged/],
    ["a series of volumes", nifti([16, 16, 4, 3]), /series of 3 volumes/],
    ["a text file", Buffer.from("no scan at all"), /cut off|NIfTI/],
    ["an empty file", Buffer.alloc(0), /cut off/],
    ["a header that claims too much", nifti([30000, 30000, 30000], () => 0, 10), /absurd|cut off|memory/],
];
for (const [what, bytes, sentence] of BAD) {
    test(`${what} is refused with a sentence, and the page goes on`, async (t) => {
        const page = await visit(t);
        await choose(page, "cpu", "You chose the CPU");
        const before = await page.textContent("#slice-at");
        await drop(page, "bad.nii.gz", bytes);
        await page.locator("#cases [aria-current]").filter({ hasText: "bad.nii.gz" }).waitFor();
        // Nothing of the case before is left to be taken for this one.
        assert.notEqual(await page.textContent("#slice-at"), before);
        assert.match(await refusal(page), sentence);
        await drop(page, "good.nii.gz", scan);
        await page.locator("#cases [aria-current]").filter({ hasText: "good.nii.gz" }).waitFor();
        await segment(page);
        assert.equal(await page.locator("#result table").count(), 1);
    });
}

test("a scan too large for a page is refused before any memory is taken", async (t) => {
    const page = await visit(t);
    await drop(page, "huge.nii.gz", nifti([2000, 2000, 200], () => 0, 1000));
    await page.locator("#cases [aria-current]").filter({ hasText: "huge.nii.gz" }).waitFor();
    assert.match(await refusal(page), /2000 x 2000 x 200 voxels needs about \d+ MB .* flapsam segment/);
});

test("an adapter that is none is refused, and the run's is a click away", async (t) => {
    const page = await visit(t);
    await page.locator("#pick-adapter").setInputFiles({
        name: "mine.safetensors",
        mimeType: "application/octet-stream",
        buffer: Buffer.from("no tensors"),
    });
    assert.match(await refusal(page), /the adapter: /);
    await page.getByRole("button", { name: "Use the run's" }).click();
    await page.locator("#notices .close").click();
    await segment(page);
    assert.equal(await page.locator("#result table").count(), 1);
});

test("without WebGPU the CPU runs, and WebGPU is refused with a way on", async (t) => {
    const page = await visit(t, { gpu: false });
    await page.locator("#device .why").filter({ hasText: "offers no WebGPU adapter" }).waitFor();
    await page.locator("#device [value=webgpu]").check({ force: true });
    assert.match(await notice(page, "device"), /no WebGPU adapter; choose the CPU/);
    await page.getByRole("button", { name: "Use the CPU" }).click();
    await page.locator("#device .why").filter({ hasText: "You chose the CPU" }).waitFor();
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
});

test("limits that are too small are told before the run", async (t) => {
    const page = await visit(t, { prepare: (page) => inWorker(page, SMALL_LIMITS) });
    await choose(page, "webgpu", "You chose WebGPU");
    assert.match(await refusal(page), /needs a tensor of \d+ kB .* and WebGPU here allows 100 kB; choose the CPU/);
    await page.getByRole("button", { name: "Use the CPU" }).click();
    await page.locator("#device .why").filter({ hasText: "You chose the CPU" }).waitFor();
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
});

test("a lost device is told, diagnostics say so, and the CPU goes on", { timeout: 200_000 }, async (t) => {
    const lost = `
        const request = GPUAdapter.prototype.requestDevice;
        GPUAdapter.prototype.requestDevice = async function (...asked) {
            const device = await request.apply(this, asked);
            self.addEventListener("message", ({ data }) => data.kind === "run" && setTimeout(() => device.destroy(), 1500));
            return device;
        };`;
    const page = await visit(t, { prepare: (page) => inWorker(page, lost) });
    await choose(page, "webgpu", "You chose WebGPU");
    const message = await refusal(page);
    t.diagnostic(message);
    await page.click("#copy-diagnostics", { timeout: 120_000 });
    await page.getByText("Copied").waitFor();
    const copied = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
    assert.equal(copied.device.backend, "webgpu");
    assert.ok(copied.failures.some((failure) => failure.includes(message)), JSON.stringify(copied.failures));
    await page.getByRole("button", { name: "Use the CPU" }).click();
    await page.locator("#device .why").filter({ hasText: "You chose the CPU" }).waitFor();
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
});

test("a device that computes wrongly is named, and the CPU taken", { timeout: 200_000 }, async (t) => {
    // As of a driver whose exponential is another one.
    const wrong = `
        const create = GPUDevice.prototype.createShaderModule;
        GPUDevice.prototype.createShaderModule = function (asked) {
            return create.call(this, { ...asked, code: asked.code.replaceAll(/\\bexp\\(/g, "exp2(") });
        };`;
    const page = await visit(t, { prepare: (page) => inWorker(page, wrong) });
    await page.locator("#device [value=webgpu]").check({ force: true });
    const why = page.locator("#device .why").filter({ hasText: /computes wrongly/ });
    await why.waitFor({ timeout: 120_000 });
    assert.match(await why.textContent(), /^CPU .*WebGPU on .* computes wrongly \(.* off.*\), so the CPU is taken/);
    assert.match(await page.locator("#device").textContent(), /Self-testwrong:/);
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
});

test("images that the graphics driver takes away come back", async (t) => {
    const page = await visit(t);
    await page.evaluate(() => {
        const gl = document.querySelector("#canvas").getContext("webgl2");
        gl.getExtension("WEBGL_lose_context").loseContext();
    });
    assert.match(await notice(page, "canvas"), /took the images away/);
    await page.getByRole("button", { name: "Draw the images again" }).click();
    await page.waitForTimeout(2000);
    assert.ok((await pixels(page)).colours > 100);
});

test("weights that do not come are told, and fetched when asked again", async (t) => {
    const page = await visit(t);
    const gone = (route) => route.fulfill({ status: 404 });
    await page.route("**/adapter.safetensors", gone);
    assert.match(await refusal(page), /adapter.safetensors cannot be fetched \(404\)/);
    await page.unroute("**/adapter.safetensors", gone);
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator("#result table").waitFor({ timeout: 60_000 });
});

test("a server that has gone away is told", async (t) => {
    const page = await visit(t);
    await page.route("**/files/cases/**", (route) => route.abort());
    await page.locator("#cases [data-case]").nth(2).click();
    assert.match(await notice(page, "case"), /still running/);
    await page.unroute("**/files/cases/**");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator("#segment:enabled").waitFor();
});
