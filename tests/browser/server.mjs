// `flapsam view`: what is served and what is not; the exported folder.

import assert from "node:assert/strict";
import { createReadStream, existsSync, readdirSync, statSync } from "node:fs";
import { createServer, request } from "node:http";
import { extname, join } from "node:path";
import { test } from "node:test";

import { agreement, drop, flapsam, folder, nifti, run, segment, url, visit } from "./setup.mjs";

/** An answer to a path that is sent as it is. */
function ask(path, options = {}) {
    const { hostname, port } = new URL(url);
    return new Promise((resolve, reject) => {
        const asked = request({ hostname, port, path, ...options }, (answer) => {
            answer.resume();
            answer.on("end", () => resolve({ status: answer.statusCode, headers: answer.headers }));
        });
        asked.on("error", reject);
        asked.end();
    });
}

test("nothing outside the run and the page is served", async () => {
    const outside = [
        "/../Cargo.toml",
        "/files/../../config.toml",
        "/%2e%2e/Cargo.toml",
        "/files/%2e%2e%2fmetrics.json",
        "/files/cases/0/..%2f..%2fbase.safetensors",
        "//etc/passwd",
        "/metrics.json",
        "/config.toml",
        "/files",
        "/files/",
        "/files/cases/9999/image.nii.gz",
        "/run.json/",
        "http://other.example/run.json",
    ];
    for (const path of outside) assert.equal((await ask(path)).status, 404, path);
    assert.equal((await ask("/run.json", { method: "POST" })).status, 405);
    assert.equal((await ask("/run.json", { headers: { Host: "other.example" } })).status, 421);
});

test("answers have their types, a policy, and caches that know what changes", async () => {
    const page = await ask("/");
    assert.equal(page.headers["content-type"], "text/html; charset=utf-8");
    assert.equal(page.headers["cache-control"], "no-cache");
    assert.match(page.headers["content-security-policy"], /default-src 'none'.*frame-ancestors 'none'/);
    assert.equal(page.headers["x-content-type-options"], "nosniff");
    const assets = readdirSync(new URL("../../viewer/web/dist/assets", import.meta.url));
    const wasm = await ask(`/assets/${assets.find((name) => name.endsWith(".wasm"))}`, { method: "HEAD" });
    assert.equal(wasm.headers["content-type"], "application/wasm");
    assert.match(wasm.headers["cache-control"], /immutable/);
    const scan = await ask("/files/cases/0/image.nii.gz");
    assert.equal(scan.headers["content-type"], "application/gzip");
    assert.equal(scan.headers["content-encoding"], undefined);
    const again = await ask("/files/cases/0/image.nii.gz", { headers: { "If-None-Match": scan.headers.etag } });
    assert.equal(again.status, 304);
});

/** The simplest of web servers, as a host without any settings is. */
function host(exported) {
    const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };
    const server = createServer((asked, answer) => {
        const path = join(exported, new URL(asked.url, "http://host").pathname.replace(/\/$/, "/index.html"));
        if (!existsSync(path) || !statSync(path).isFile()) return answer.writeHead(404).end();
        answer.writeHead(200, { "Content-Type": types[extname(path)] ?? "application/octet-stream" });
        createReadStream(path).pipe(answer);
    });
    return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

test("an exported folder is a page on any web host", async (t) => {
    const exported = join(folder, "exported/below");
    flapsam("view", run.path, "--data", run.data, "--export", exported);
    const server = await host(join(folder, "exported"));
    t.after(() => server.close());
    const page = await visit(t, { at: `http://127.0.0.1:${server.address().port}/below/` });
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
});

test("after a visit the page opens without its server, and what it keeps can be deleted", { timeout: 900_000 }, async (t) => {
    const exported = join(folder, "kept");
    flapsam("view", run.path, "--data", run.data, "--export", exported);
    const server = await host(exported);
    const at = `http://127.0.0.1:${server.address().port}/`;
    const page = await visit(t, { at, offline: true });
    const kept = page.locator("#kept-status").filter({ hasText: /MB of the page/ });
    await kept.waitFor();
    // What is looked at from now on is kept, and the weights.
    await page.locator("#cases [data-case]").nth(1).click();
    await page.locator("#cases [aria-current]").waitFor();
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9);
    await kept.filter({ hasText: /[1-9][\d.]* [kM]B of weights/ }).waitFor();
    t.diagnostic(await kept.textContent());
    const second = page.url();

    server.closeAllConnections();
    await new Promise((done) => server.close(done));
    await page.goto(second);
    await page.locator("#slice-at").filter({ hasText: /\d+ of \d+/ }).waitFor();
    await segment(page);
    assert.ok((await agreement(page)).percent >= 99.9, "a case that was seen");
    await drop(page, "own.nii.gz", nifti([40, 30, 6]));
    await page.locator("#slice-at").filter({ hasText: "of 6" }).waitFor();

    await page.locator("#delete-kept").click();
    await page.locator("#kept-status").filter({ hasText: "deleted" }).waitFor();
    const left = await page.evaluate(async () => {
        const folders = [];
        for await (const name of (await navigator.storage.getDirectory()).keys()) folders.push(name);
        return [await caches.keys(), folders, (await navigator.serviceWorker.getRegistrations()).length];
    });
    assert.deepEqual(left, [[], [], 0]);
});
