// The benchmark itself, on the small network.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { judge, measure } from "./benchmark.mjs";
import { makeNetwork, makeScan } from "./setup.mjs";

const folder = mkdtempSync(join(tmpdir(), "flapsam-benchmark-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const network = makeNetwork("nano", folder);
const scan = makeScan(network, 1);

test("both engines find the same, and there is a ratio", async () => {
    const result = await measure(network, scan, 2);
    assert.ok(result.differing <= 1e-3 * result.voxels, `${result.differing} of ${result.voxels}`);
    assert.ok(result.ratio > 0 && Number.isFinite(result.ratio));
});

test("there is no ratio of engines that find different labels", async () => {
    const other = makeScan(network, 1, 7);
    const mixed = measure(network, { nifti: scan.nifti, slices: other.slices }, 1);
    await assert.rejects(mixed, /no ratio of two networks: they differ on \d+ of 131072 voxels/);
});

test("up to a thousandth of the voxels may differ, and a mask needs labels", () => {
    const pass = (differing, voxels = [1500, 500, 0]) => {
        const times = { flapsam: [24], onnxruntime: [16] };
        return { times, differing, total: 2000, voxels };
    };
    const figures = judge([pass(2), pass(2)]);
    assert.deepEqual([figures.flapsam.median, figures.onnxruntime.median, figures.ratio], [3, 2, 1.5]);
    assert.throws(() => judge([pass(2), pass(3)]), /differ on 3 of 2000 voxels/);
    assert.throws(() => judge([pass(0, [2000, 0, 0]), pass(0)]), /one label/);
});
