// Asking SAM without an adapter, by clicks and boxes.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";

import { agreement, choose, folder, inWorker, notice, python, segment, SMALL_LIMITS, visit } from "./setup.mjs";

/** The dialog on the slice at the crosshair. */
async function open(page) {
    await page.click("#ask");
    await page.locator("#prompts-dialog[open]").waitFor();
    return page.locator(".pad");
}

/** Clicks on a part of the pad. */
async function click(pad, x, y, options = {}) {
    const { width, height } = await pad.boundingBox();
    await pad.click({ position: { x: x * width, y: y * height }, ...options });
}

/** Waits for an answer; what the page says of it, and the scores. */
async function answer(page, status = /nswered in \d+ ms/) {
    const said = page.locator("#prompt-status").filter({ hasText: status });
    await said.waitFor({ timeout: 60_000 });
    const masks = page.locator("#prompts-dialog label").filter({ hasText: /^Mask/ });
    const scores = (await masks.allTextContents()).map((text) => Number(text.split(": ")[1]));
    return { said: await said.textContent(), scores };
}

/** Whether a part of the slice is in the mask: it is orange, and everything else is grey. */
function inMask(pad, x, y) {
    return pad.locator("canvas").evaluate(
        (canvas, [x, y]) => {
            const [column, row] = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
            const [red, , blue] = canvas.getContext("2d").getImageData(column, row, 1, 1).data;
            return red - blue > 50;
        },
        [x, y],
    );
}

test("clicks and a box give masks and scores, and a slice is encoded once", async (t) => {
    const page = await visit(t);
    await choose(page, "cpu", "You chose the CPU");
    const pad = await open(page);
    assert.equal(await page.getByRole("button", { name: "Undo" }).isDisabled(), true);
    await click(pad, 0.32, 0.4);
    const first = await answer(page);
    assert.equal(first.scores.length, 3);
    // The best one is shown, and holds what was clicked.
    const chosen = await page.locator("#prompts-dialog label:has(:checked)").filter({ hasText: /^Mask/ }).textContent();
    assert.equal(Number(chosen.split(": ")[1]), Math.max(...first.scores));
    assert.ok(await inMask(pad, 0.32, 0.4));
    assert.ok(!(await inMask(pad, 0.02, 0.02)));

    // Excluded by the right button; then taken back.
    await click(pad, 0.7, 0.6, { button: "right" });
    await page.locator(".marks .negative").waitFor();
    const second = await answer(page, /^Answered/);
    assert.notDeepEqual(second.scores, first.scores);
    await page.getByRole("button", { name: "Undo" }).click();
    assert.deepEqual((await answer(page, /^Answered/)).scores, first.scores);

    // A box by dragging replaces nothing but another box.
    const { x, y, width, height } = await pad.boundingBox();
    await page.mouse.move(x + 0.6 * width, y + 0.5 * height);
    await page.mouse.down();
    await page.mouse.move(x + 0.8 * width, y + 0.75 * height, { steps: 3 });
    await page.mouse.up();
    await page.locator(".marks .box").waitFor();
    assert.notDeepEqual((await answer(page, /^Answered/)).scores, first.scores);
    await page.getByRole("button", { name: "Clear" }).click();
    assert.equal(await page.locator(".marks i:not(.cursor)").count(), 0);
    assert.ok(!(await inMask(pad, 0.32, 0.4)));

    // Another slice is encoded anew, the first one is still known; and so it is after a case was chosen again.
    const slices = async (slice) => {
        await page.keyboard.press("Escape");
        await page.locator("#slice").fill(slice);
        await open(page);
        await click(pad, 0.32, 0.4);
        return answer(page);
    };
    const at = await page.locator("#slice").inputValue();
    assert.notDeepEqual((await slices("3")).scores, first.scores);
    const again = await slices(at);
    assert.match(again.said, /^Answered/);
    assert.deepEqual(again.scores, first.scores);

    // The adapter's network takes the base's place, and back.
    await page.keyboard.press("Escape");
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
});

test("a slice and those beside it are encoded ahead, and a question does not wait for them", async (t) => {
    const page = await visit(t);
    await choose(page, "cpu", "You chose the CPU");
    const pad = await open(page);
    const status = page.locator("#prompt-status");
    await status.filter({ hasText: "The slice is encoded" }).waitFor({ timeout: 60_000 });
    await click(pad, 0.32, 0.4);
    await answer(page, /^Answered/);
    // The slice above, which nobody has asked about.
    await page.waitForTimeout(3000);
    await page.keyboard.press("Escape");
    await page.locator("#slice").fill(String(Number(await page.locator("#slice").inputValue()) + 1));
    await open(page);
    await click(pad, 0.32, 0.4);
    await answer(page, /^Answered/);
});

/** Of a mask that lies in one slice: along which axis, to the right, the front or up, and which slice from 1. */
const FLAT = `
import json, sys, nibabel, numpy
image = nibabel.as_closest_canonical(nibabel.load(sys.argv[1]))
places = numpy.argwhere(numpy.asarray(image.dataobj) > 0)
flat = [axis for axis in range(3) if len(set(places[:, axis])) == 1]
print(json.dumps([[axis, int(places[0, axis]) + 1, image.shape[axis]] for axis in flat]))`;

for (const [plane, axis] of [["coronal", 1], ["sagittal", 0]]) {
    test(`an answer about a ${plane} slice is kept in that slice`, async (t) => {
        const page = await visit(t, { query: `?view=${plane}` });
        await choose(page, "cpu", "You chose the CPU");
        const pad = await open(page);
        const at = await page.locator("#slice").inputValue();
        assert.match(await page.textContent("#slice-title"), new RegExp(`${plane} slice ${at} of`));
        await click(pad, 0.3, 0.5);
        await answer(page);
        await page.locator("#keep").click();
        await page.locator("#prompt-status").filter({ hasText: "in your mask" }).waitFor();
        await page.keyboard.press("Escape");
        const download = page.waitForEvent("download");
        await page.locator("#save-correction").click();
        const path = join(folder, `${plane}.nii.gz`);
        await (await download).saveAs(path);
        const flat = python(t, FLAT, path);
        if (flat) assert.deepEqual(flat.map(([axis, number]) => [axis, number]), [[axis, Number(at)]]);
    });
}

test("a plane may be chosen whatever is shown", async (t) => {
    const page = await visit(t, { query: "?view=planes" });
    await page.getByLabel("Plane of the slice").selectOption("sagittal");
    await open(page);
    const said = await page.textContent("#readout");
    const [, at] = said.match(/S (\d+)\//);
    assert.match(await page.textContent("#slice-title"), new RegExp(`sagittal slice ${at} of`));
});

test("prompts work by keyboard", async (t) => {
    const page = await visit(t, { gpu: false });
    await page.locator("#ask").focus();
    await page.keyboard.press("Enter");
    await page.locator(".pad:focus").waitFor();
    await page.keyboard.press("Shift+ArrowLeft");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Enter");
    await answer(page);
    await page.keyboard.press("Shift+ArrowRight");
    await page.keyboard.press("Shift+Enter");
    await page.locator(".marks .negative").waitFor();
    await answer(page, /^Answered/);
    await page.locator("#prompts-dialog [value=box]").check({ force: true });
    await page.locator(".pad").focus();
    await page.keyboard.press("Enter");
    assert.match(await page.textContent("#prompt-status"), /opposite corner/);
    await page.keyboard.press("Shift+ArrowDown");
    await page.keyboard.press("Shift+ArrowRight");
    await page.keyboard.press("Enter");
    await page.locator(".marks .box").waitFor();
    await answer(page, /^Answered/);
});

test("what a device cannot hold is refused, and the CPU is a click away", async (t) => {
    const page = await visit(t, { prepare: (page) => inWorker(page, SMALL_LIMITS) });
    await choose(page, "webgpu", "You chose WebGPU");
    const pad = await open(page);
    await click(pad, 0.4, 0.4);
    await page.locator("#prompt-status").filter({ hasText: /needs a tensor of .* choose the CPU/ }).waitFor();
    await page.keyboard.press("Escape");
    assert.match(await notice(page, "prompts"), /needs a tensor/);
    await page.getByRole("button", { name: "Use the CPU" }).click();
    await page.locator("#device .why").filter({ hasText: "You chose the CPU" }).waitFor();
    await open(page);
    await click(pad, 0.4, 0.4);
    await answer(page);
});

test("a question that takes long is given up with its dialog, and what waits behind it goes on", async (t) => {
    const page = await visit(t);
    await choose(page, "webgpu", "You chose WebGPU");
    const pad = await open(page);
    // The software adapter now translates the network's kernels, for tens of seconds.
    await click(pad, 0.4, 0.4);
    await page.locator("#prompt-status").filter({ hasText: "Asking" }).waitFor();
    await page.keyboard.press("Escape");
    await choose(page, "cpu", "You chose the CPU");
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
    assert.equal(await page.locator(".notice").count(), 0);
});
