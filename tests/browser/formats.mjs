// Scans of other formats than NIfTI.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join, resolve } from "node:path";
import { test } from "node:test";

import { choose, dropFolder, folder, metrics, notice, python, root, run, saveMask, segment, visit } from "./setup.mjs";

const MAKE = join(root, "tests/python/dicom.py");

/** Runs tests/python/dicom.py; false without a Python. */
function dicom(test, ...args) {
    if (!python(test, "print(1)")) return false;
    execFileSync(process.env.FLAPSAM_PYTHON, [MAKE, ...args], { stdio: ["ignore", "ignore", "inherit"] });
    return true;
}

/** How much of two label maps is equal voxel by voxel in space, and whether the first one's header has words in it. */
const COMPARE = `
import json, sys, nibabel, numpy
one, other = (nibabel.as_closest_canonical(nibabel.load(path)) for path in sys.argv[1:3])
header = nibabel.load(sys.argv[1]).header
print(json.dumps({
    "apart": float(abs(one.affine - other.affine).max()),
    "equal": float((numpy.asarray(one.dataobj) == numpy.asarray(other.dataobj)).mean()),
    "words": [str(header[field].item()) for field in ("descrip", "aux_file", "intent_name", "db_name") if header[field].item()],
    "labels": sorted(int(label) for label in numpy.unique(numpy.asarray(one.dataobj))),
}))`;

test("a folder of DICOM files is segmented as the scan that it was, and its mask names nobody", { timeout: 200_000 }, async (t) => {
    const { site, case: id } = metrics.cases[0];
    const series = join(folder, "dicom");
    if (!dicom(t, "of-nifti", join(run.data, "phantom", id, "imaging.nii.gz"), series)) return;
    const asked = [];
    const page = await visit(t, { prepare: (page) => page.on("request", (request) => asked.push(request.url())) });
    await choose(page, "cpu", "You chose the CPU");
    const loaded = () => asked.some((address) => /dcm2niix.*\.wasm/.test(address));
    assert.ok(!loaded(), "not with the page");
    await page.locator("#pick-folder").setInputFiles(series);
    await page.locator("#cases [aria-current]").filter({ hasText: "1_a_series" }).waitFor({ timeout: 60_000 });
    assert.ok(loaded());
    await segment(page);
    const mask = await saveMask(page, "of-dicom.nii.gz");
    const found = python(t, COMPARE, mask, join(run.path, "predictions", site, `${id}.nii.gz`));
    assert.ok(found.apart < 1e-3 && found.equal >= 0.999 && found.labels.length > 1, JSON.stringify(found));
    assert.deepEqual(found.words, []);
});

test("of several series in a dropped folder one is chosen by name", { timeout: 120_000 }, async (t) => {
    const made = join(folder, "made");
    if (!dicom(t, "make", made)) return;
    const page = await visit(t);
    await dropFolder(page, resolve(made, "two_series"));
    const dialog = page.locator("#series");
    await dialog.getByRole("button", { name: "2 abdomen" }).click({ timeout: 60_000 });
    await page.locator("#cases [aria-current]").filter({ hasText: "2_abdomen" }).waitFor();
    await page.locator("#slice-at").filter({ hasText: "of 7" }).waitFor();
    assert.ok(await dialog.isHidden());

    const refused = [
        ["missing", /not equally far apart/],
        ["tilted", /lie askew/],
        ["no_place", /do not say where/],
        ["nothing", /no DICOM series/],
    ];
    for (const [kind, sentence] of refused) {
        await dropFolder(page, resolve(made, kind));
        assert.match(await notice(page, "file"), sentence);
        await page.locator("#notices .close").click();
    }
});
