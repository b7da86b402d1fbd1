// The same page in Firefox: by puppeteer, since Playwright drives no Firefox but its own.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, test } from "node:test";

import puppeteer from "puppeteer-core";

import { skip, url } from "./setup.mjs";

const program = process.env.FIREFOX ?? "/usr/bin/firefox-esr";
/** WebGPU on a software adapter, which Firefox keeps to itself otherwise. */
const preferences = { "dom.webgpu.enabled": true, "gfx.webgpu.ignore-blocklist": true };
let firefox = null;
after(() => firefox?.close());

/** The page; null without a Firefox. Nothing may be thrown in it. */
async function visit(t) {
    if (!existsSync(program)) {
        skip(t, `there is no ${program}; tests/run.sh sets one up`, true);
        return null;
    }
    firefox ??= await puppeteer.launch({ browser: "firefox", executablePath: program, extraPrefsFirefox: preferences });
    const context = await firefox.createBrowserContext();
    t.after(() => context.close());
    const page = await context.newPage();
    const thrown = [];
    page.on("pageerror", (error) => thrown.push(error.message));
    t.after(() => assert.deepEqual(thrown, []));
    await page.goto(url);
    await holds(page, "#device .why", /./);
    return page;
}

/** Waits until the text of an element is as wanted; the text. */
async function holds(page, place, wanted, timeout = 60_000) {
    const text = (place) => document.querySelector(place)?.textContent ?? "";
    const matches = (place, source) => new RegExp(source).test(document.querySelector(place)?.textContent ?? "");
    await page.waitForFunction(matches, { timeout }, place, wanted.source);
    return page.evaluate(text, place);
}

async function segmentOn(page, device, said, timeout) {
    await page.$eval(`#device [value=${device}]`, (radio) => radio.click());
    await holds(page, "#device .why", said, timeout);
    await page.click("#segment");
    await holds(page, "#status", /slices in|did not finish/, timeout);
    return holds(page, "#run-here", /Same as native/);
}

test("Firefox's CPU equals the native prediction", { timeout: 200_000 }, async (t) => {
    const page = await visit(t);
    if (!page) return;
    assert.match(await segmentOn(page, "cpu", /You chose the CPU/, 120_000), /Same as native100 % of/);
});

test("Firefox's WebGPU on a software adapter computes the same, or says why not", { timeout: 600_000 }, async (t) => {
    const page = await visit(t);
    if (!page) return;
    await page.$eval("#device [value=webgpu]", (radio) => radio.click());
    t.diagnostic(await holds(page, "#device .why", /You chose WebGPU|computes wrongly|no WebGPU/, 240_000));
    await page.click("#segment");
    await holds(page, "#status", /slices in|did not finish/, 300_000);
    assert.match(await holds(page, "#run-here", /Same as native/), /Same as native(100|99\.9\d*) % of/);
});
