// Two cases, or two masks of one, side by side.

import assert from "node:assert/strict";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { drop, folder, metrics, nifti, run, serve, visit } from "./setup.mjs";

/** Millimetres at the crosshair. */
const crosshair = async (page) => {
    const fact = page.locator("#readout div").filter({ has: page.locator("dt", { hasText: "mm" }) });
    return (await fact.locator("dd").textContent()).split(", ").map(Number);
};

/** A run of the same name in another folder, whose masks are the truth. */
function perfectRun() {
    const path = join(folder, "perfect/browser-1");
    cpSync(run.path, path, { recursive: true });
    for (const { site, case: id } of metrics.cases) {
        cpSync(join(run.data, "phantom", id, "segmentation.nii.gz"), join(path, "predictions", site, `${id}.nii.gz`));
    }
    return path;
}

/** A colour of the canvas beside; what is drawn there is told by its pixels alone. */
const drawn = (page) => page.locator("#beside-canvas").screenshot().then((picture) => picture.toString("base64"));

async function changed(page, before, what) {
    for (let tries = 0; tries < 60; tries++) {
        if ((await drawn(page)) !== before) return drawn(page);
        await page.waitForTimeout(250);
    }
    throw new Error(`nothing changed beside with ${what}`);
}

test("another mask and another case are shown beside, linked by millimetres", async (t) => {
    const page = await visit(t, { query: "?view=axial" });
    const button = page.locator("#open-beside");
    await button.click();
    assert.equal(await button.getAttribute("aria-pressed"), "true");
    await page.locator("#beside-canvas").waitFor();
    const masks = page.getByLabel("Mask beside");
    await page.waitForFunction(() => document.querySelector('[aria-label="Mask beside"]').options.length === 3);
    assert.deepEqual(await masks.locator("option").allTextContents(), ["Truth", "Native", "No mask"]);
    assert.equal(await masks.inputValue(), "native");
    await page.waitForTimeout(1500);

    let now = await drawn(page);
    await masks.selectOption("");
    now = await changed(page, now, "no mask");
    await masks.selectOption("truth");
    now = await changed(page, now, "the truth");

    // The main images move the ones beside, and these move the main ones.
    await page.locator("#slice").fill("3");
    now = await changed(page, now, "the slice");
    const before = await crosshair(page);
    await page.locator("#beside-canvas").focus();
    await page.keyboard.press("PageUp");
    await page.keyboard.press("ArrowLeft");
    now = await changed(page, now, "its own keys");
    const after = await crosshair(page);
    assert.ok(after[2] > before[2] && after[0] > before[0] && after[1] === before[1], `${before} and ${after}`);
    await page.locator("#views [value=coronal]").check({ force: true });
    now = await changed(page, now, "the view");

    // A scan of another grid: the same millimetres, not the same voxels.
    await drop(page, "small.nii.gz", nifti([40, 40, 20]));
    await page.locator("#cases [aria-current]").filter({ hasText: "small.nii.gz" }).waitFor();
    await page.locator("#slice-at").filter({ hasText: "of 40" }).waitFor();
    const { site, case: id } = metrics.cases[1];
    await page.getByLabel("Case beside").selectOption(`${site}/${id}`);
    now = await changed(page, now, "another case");
    await page.locator("#canvas").focus();
    const here = await crosshair(page);
    await page.keyboard.press("PageUp");
    const there = await crosshair(page);
    assert.equal(Math.round(10 * (there[2] - here[2])), 15, "one voxel of the scan that is worked on");
    await changed(page, now, "the other scan's slice");

    await button.click();
    assert.ok(await page.locator("#beside").isHidden());
    assert.equal(await page.locator("#notices .notice").count(), 0);
});

test("another run's mask of the case is shown beside, with its Dice", async (t) => {
    const page = await visit(t, { query: "?view=axial", at: await serve("--beside", perfectRun()) });
    const fetched = page.waitForRequest(/beside-0/);
    await page.click("#open-beside");
    const masks = page.getByLabel("Mask beside");
    await page.waitForFunction(() => document.querySelector('[aria-label="Mask beside"]').options.length === 4);
    const titles = await masks.locator("option").allTextContents();
    assert.match(titles[2], /^browser-1, Dice 0\.\d{3}, 0\.\d{3}$/);
    assert.equal(await masks.inputValue(), "0", "the other run's comes first");
    await fetched;
    await page.waitForTimeout(1500);
    const perfect = await drawn(page);
    await masks.selectOption("native");
    const own = await changed(page, perfect, "this run's own mask");
    await masks.selectOption("0");
    await changed(page, own, "the other run's mask");

    // It follows to the next case.
    const { site, case: id } = metrics.cases[1];
    const next = page.waitForRequest(/beside-0/);
    await page.locator("#cases button").filter({ hasText: id }).first().click();
    await next;
    assert.equal(await masks.inputValue(), "0");
    assert.equal(await page.locator("#notices .notice").count(), 0, `${site}/${id}`);
});
