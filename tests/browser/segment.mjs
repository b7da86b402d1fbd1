// Segmenting in the browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { agreement, choose, drop, metrics, nifti, notice, python, run, saveMask, segment, shared, visit } from "./setup.mjs";

/** What nibabel says of two files: shape and affine to the bit, header fields, labels. */
const COMPARE = `
import json, sys, nibabel, numpy
one, other = (nibabel.load(path) for path in sys.argv[1:3])
a, b = (numpy.asarray(image.dataobj) for image in (one, other))
print(json.dumps({
    "shape": one.shape == other.shape,
    "affine": one.affine.tobytes() == other.affine.tobytes(),
    "forms": all(bool(one.header[code] == other.header[code]) for code in ("sform_code", "qform_code")),
    "equal": float((a == b).mean()) if one.shape == other.shape else 0,
    "labels": sorted(int(label) for label in numpy.unique(a)),
}))`;

test("a whole volume on the CPU equals the native prediction, and the page stays responsive", async (t) => {
    const page = await visit(t, {
        prepare: (page) =>
            page.addInitScript(() => {
                window.tasks = [];
                const note = (list) => window.tasks.push(...list.getEntries().map(({ startTime, duration }) => [startTime, duration]));
                new PerformanceObserver(note).observe({ type: "longtask" });
            }),
    });
    await choose(page, "cpu", "You chose the CPU");
    await page.waitForTimeout(500);
    const start = await page.evaluate(() => performance.now());
    const ended = page.evaluate(
        () =>
            new Promise((resolve) => {
                const status = document.querySelector("#status");
                const look = () => /slices in/.test(status.textContent) && resolve(performance.now());
                new MutationObserver(look).observe(status, { childList: true, characterData: true, subtree: true });
            }),
    );
    const status = await segment(page);
    assert.match(status, /^\d+ slices in .* on the CPU/);
    const end = await ended;
    const tasks = await page.evaluate(() => window.tasks);
    const during = tasks.filter(([at, length]) => at + length > start && at < end);
    assert.ok(during.every(([, length]) => length <= 100), `the page stood still: ${JSON.stringify(during)}`);

    const same = await agreement(page);
    t.diagnostic(`same as native: ${same.text}; ${await page.textContent('[data-fact="milliseconds"]')} a slice`);
    assert.ok(same.percent >= 99.9, same.text);
    // Dice of both, side by side.
    const rows = await page.locator("#result tbody tr").evaluateAll((all) => all.map((row) => row.innerText.split(/\s+/)));
    for (const [, , dice, native] of rows) assert.ok(Math.abs(dice - native) < 2e-3, `${dice} and ${native}`);
    const [site, id] = (await page.locator("#cases [aria-current]").getAttribute("data-case")).split("/");
    const kept = metrics.cases.find((one) => one.site === site && one.case === id);
    assert.deepEqual(rows.map((row) => row[3]), kept.dice.map((dice) => dice.toFixed(4)));

    const mask = await saveMask(page, "mask.nii.gz");
    const found = python(t, COMPARE, mask, join(run.path, "predictions", site, `${id}.nii.gz`));
    if (!found) return;
    assert.ok(found.shape && found.affine && found.forms, JSON.stringify(found));
    assert.ok(found.equal >= 0.999, `${found.equal}`);
    assert.ok(found.labels.length > 1, "a mask without labels shows nothing");
    const scan = join(run.data, "phantom", id, "imaging.nii.gz");
    const beside = python(t, COMPARE, mask, scan);
    assert.ok(beside.shape && beside.affine && beside.forms, JSON.stringify(beside));
});

test("WebGPU, forced onto the software adapter, equals the native prediction", { timeout: 400_000 }, async (t) => {
    const page = await visit(t);
    await page.locator("#device .why").filter({ hasText: /software .*slower than the CPU/ }).waitFor();
    assert.equal(await page.locator("#chip").textContent(), "CPU");
    await choose(page, "webgpu", "You chose WebGPU");
    assert.match(await page.locator("#device").textContent(), /Largest buffer/);
    const status = await segment(page, 380_000);
    assert.match(status, /on WebGPU/);
    const same = await agreement(page);
    t.diagnostic(`same as native: ${same.text}; ${await page.textContent('[data-fact="milliseconds"]')} a slice`);
    assert.ok(same.percent >= 99.9, same.text);
});

test("two runs one after the other, and one cancelled between them", async (t) => {
    const page = await visit(t);
    await choose(page, "cpu", "You chose the CPU");
    await segment(page);
    const first = await page.locator("#result tbody").innerText();

    // A larger scan, so that there is time to cancel.
    await drop(page, "large.nii.gz", nifti([256, 256, 120]));
    await page.locator("#slice-at").filter({ hasText: "of 120" }).waitFor();
    await page.click("#segment");
    await page.locator("#status").filter({ hasText: /^[1-9]\d* of 120 slices/ }).waitFor();
    await page.keyboard.press("Escape");
    await page.locator("#status").filter({ hasText: "Cancelled." }).waitFor();
    assert.equal(await page.locator("#result table").count(), 0);
    assert.ok(await page.locator("#save").isHidden());

    // The user's own scan is listed first.
    await page.locator("#cases [data-case]").nth(2).click();
    await page.locator("#slice-at").filter({ hasNotText: "of 120" }).waitFor();
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
    assert.notEqual(await page.locator("#result tbody").innerText(), first);
});

test("a step that takes too long to hear a cancellation is ended", async (t) => {
    const page = await visit(t);
    await choose(page, "webgpu", "You chose WebGPU");
    await page.click("#segment");
    // The software adapter now translates the network's kernels, for tens of seconds.
    await page.locator("#status").filter({ hasText: /^0 of \d+ slices/ }).waitFor({ timeout: 60_000 });
    await page.click("#cancel");
    await page.locator("#status").filter({ hasText: "Cancelled." }).waitFor({ timeout: 10_000 });
    await choose(page, "cpu", "You chose the CPU");
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
});

test("a run that kept no masks is segmented all the same", async (t) => {
    const without = async (page) =>
        page.route("**/run.json", async (route) => {
            const answer = await route.fetch();
            const said = await answer.json();
            said.cases.forEach((one) => (one.prediction = null));
            await route.fulfill({ response: answer, json: said });
        });
    const page = await visit(t, { prepare: without });
    assert.ok(await page.locator('[data-layer="native"]').isDisabled());
    await segment(page);
    assert.match(await page.locator('[data-fact="agreement"]').textContent(), /kept no mask/);
    const [, , dice, native] = (await page.locator("#result tbody tr").first().innerText()).split(/\s+/);
    assert.ok(Math.abs(dice - native) < 2e-3, `${dice} and ${native}`);
});

test("the base is fetched once and kept; when what is kept is damaged, it is fetched again", async (t) => {
    const page = await visit(t);
    let fetched = 0;
    page.on("request", (request) => (fetched += request.url().endsWith("base.safetensors") ? 1 : 0));
    await segment(page);
    assert.equal(fetched, 1);
    await page.reload();
    await page.locator("#segment:enabled").waitFor();
    await segment(page);
    assert.equal(fetched, 1, "it was kept");

    await page.evaluate(async () => {
        const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("weights");
        for await (const [, handle] of folder.entries()) {
            const { size } = await handle.getFile();
            const stream = await handle.createWritable();
            await stream.write(new Uint8Array(size));
            await stream.close();
        }
    });
    await page.reload();
    await page.locator("#segment:enabled").waitFor();
    assert.equal(await segment(page), "It did not finish.");
    assert.match(await notice(page, "run"), /the base checkpoint has the sha256/);
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator("#result table").waitFor({ timeout: 60_000 });
    assert.equal(fetched, 2);
    assert.ok((await agreement(page)).percent >= 99.9);
});

test("a user's own scan, labels and adapter", async (t) => {
    const page = await visit(t);
    await choose(page, "cpu", "You chose the CPU");
    const { site, case: id } = metrics.cases[0];
    const files = join(run.data, "phantom", id);
    await page.locator("#pick-scan").setInputFiles(join(files, "imaging.nii.gz"));
    await page.locator("#cases [aria-current]").filter({ hasText: "imaging.nii.gz" }).waitFor();
    await page.locator("#pick-adapter").setInputFiles(join(run.path, "adapter.safetensors"));
    await page.locator(".own-adapter").filter({ hasText: "adapter.safetensors" }).waitFor();
    await page.locator("#pick-truth").setInputFiles(join(files, "segmentation.nii.gz"));
    await page.locator('[data-layer="truth"]:enabled').waitFor();
    await segment(page);
    const dice = metrics.cases.find((one) => one.site === site && one.case === id).dice[0];
    const row = (await page.locator("#result tbody tr").first().innerText()).split(/\s+/);
    assert.ok(Math.abs(row[2] - dice) < 2e-3, `${row[2]} and ${dice}`);
    await page.locator("#pick-truth").setInputFiles({
        name: "other.nii.gz",
        mimeType: "application/gzip",
        buffer: nifti([8, 8, 8], () => 1),
    });
    assert.match(await notice(page, "comparison"), /shape/);
    const mask = await saveMask(page, "own.nii.gz");
    const found = python(t, COMPARE, mask, join(run.path, "predictions", site, `${id}.nii.gz`));
    if (found) assert.ok(found.equal >= 0.999 && found.affine, JSON.stringify(found));
});

const REAL = ["ct/example_ct_sm.nii.gz", ...["RAS", "LPS", "PIR", "SRA"].map((axes) => `nifti-space/${axes}.nii.gz`)];

for (const name of REAL) {
    test(`a real scan by drag and drop: ${name}`, { timeout: 300_000 }, async (t) => {
        const path = shared(t, `real/${name}`);
        if (!path) return;
        const page = await visit(t);
        await choose(page, "cpu", "You chose the CPU");
        await drop(page, "real.nii.gz", readFileSync(path));
        await page.locator("#cases [aria-current]").filter({ hasText: "real.nii.gz" }).waitFor();
        await segment(page, 250_000);
        const found = python(t, COMPARE, await saveMask(page, "real.nii.gz"), path);
        if (found) assert.ok(found.shape && found.affine && found.forms, JSON.stringify(found));
    });
}
