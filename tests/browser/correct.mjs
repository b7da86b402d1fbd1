// Masks that a user draws, and keeps of SAM's answers.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { flapsam, folder, metrics, notice, python, run, visit } from "./setup.mjs";

const [first, second] = metrics.cases.map((one) => `${one.site}/${one.case}`);

/** What nibabel reads: labels with how often they are there, whether the header is the scan's, and the marked slices. */
function judged(mask, key) {
    const [, id] = key.split("/");
    const scan = join(run.data, "phantom", id, "imaging.nii.gz");
    const script = `
import json, sys, nibabel, numpy
mask, scan = map(nibabel.load, sys.argv[1:])
labels, counts = numpy.unique(numpy.asarray(mask.dataobj), return_counts=True)
same = mask.shape == scan.shape and (mask.affine == scan.affine).all() and mask.header["xyzt_units"] == scan.header["xyzt_units"]
up = int(numpy.argmax(abs(mask.affine[2, :3])))
slices = numpy.unique(numpy.argwhere(numpy.asarray(mask.dataobj) > 0)[:, up])
print(json.dumps([dict(zip(labels.tolist(), counts.tolist())), bool(same), slices.tolist()]))`;
    return JSON.parse(execFileSync(process.env.FLAPSAM_PYTHON, ["-c", script, mask, scan], { encoding: "utf8" }));
}

async function saved(page, name) {
    const coming = page.waitForEvent("download");
    await page.locator("#save-correction").click();
    const download = await coming;
    assert.match(download.suggestedFilename(), /_corrected\.nii\.gz$/);
    const path = join(folder, name);
    await download.saveAs(path);
    return path;
}

async function stroke(page, x, y) {
    const box = await page.locator("#canvas").boundingBox();
    await page.mouse.move(box.x + box.width * x, box.y + box.height * y);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * x + 50, box.y + box.height * y + 10, { steps: 5 });
    await page.mouse.up();
    await page.waitForTimeout(300);
}

test("a mask is drawn, erased, taken back and saved with the scan's header", async (t) => {
    const page = await visit(t, { query: `?view=axial&case=${first}` });
    const from = page.getByLabel("Begin with");
    await from.selectOption("empty");
    await page.locator("#correct").click();
    await page.locator("#pens").waitFor();
    const empty = judged(await saved(page, "empty.nii.gz"), first);
    assert.deepEqual([Object.keys(empty[0]), empty[1]], [["0"], true]);

    await page.locator('#pens [value="2"]').check({ force: true });
    await stroke(page, 0.45, 0.5);
    const drawn = judged(await saved(page, "drawn.nii.gz"), first);
    assert.ok(drawn[0]["2"] > 10 && !drawn[0]["1"], JSON.stringify(drawn));
    assert.equal(drawn[1], true, "the scan's shape, affine and units");
    assert.equal(drawn[2].length, 1, "on one slice");

    await page.locator('#pens [value="0"]').check({ force: true });
    await stroke(page, 0.45, 0.5);
    const erased = judged(await saved(page, "erased.nii.gz"), first);
    assert.ok((erased[0]["2"] ?? 0) < drawn[0]["2"]);
    await page.locator("#undo").click();
    assert.deepEqual(judged(await saved(page, "undone.nii.gz"), first), drawn);
    await page.locator("#redo").click();
    assert.deepEqual(judged(await saved(page, "redone.nii.gz"), first), erased);
    await page.locator("#undo").click();

    // Another case, and back: nothing is lost.
    await page.locator(`[data-case="${second}"]`).click();
    await page.locator("#correct:not(:disabled)").waitFor();
    assert.ok(await page.locator("#pens").isHidden());
    await page.locator(`[data-case="${first}"]`).click();
    await page.locator("#pens").waitFor();
    assert.deepEqual(judged(await saved(page, "back.nii.gz"), first), drawn);

    await page.locator("#discard").click();
    assert.ok(await page.locator("#pens").isHidden());
});

test("the native mask is taken up as it is, and Look moves the crosshair", async (t) => {
    const page = await visit(t, { query: `?view=axial&case=${first}` });
    await page.getByLabel("Begin with").selectOption("native");
    await page.locator("#correct").click();
    await page.locator("#pens").waitFor();
    const before = await page.textContent("#readout");
    await stroke(page, 0.4, 0.45);
    assert.notEqual(await page.textContent("#readout"), before);
    const [site, id] = first.split("/");
    const native = join(run.path, "predictions", site, `${id}.nii.gz`);
    assert.deepEqual(judged(await saved(page, "native.nii.gz"), first), judged(native, first));
});

test("an answer is kept, and carried through the slices until it is stopped or ends", async (t) => {
    const page = await visit(t, { query: `?view=axial&case=${first}` });
    await page.locator("#ask").click();
    await page.locator("dialog[open]").waitFor();
    const pad = await page.locator(".pad").boundingBox();
    await page.mouse.move(pad.x + 0.25 * pad.width, pad.y + 0.35 * pad.height);
    await page.mouse.down();
    await page.mouse.move(pad.x + 0.75 * pad.width, pad.y + 0.75 * pad.height, { steps: 4 });
    await page.mouse.up();
    await page.locator("#keep").waitFor({ timeout: 120_000 });
    await page.getByLabel("Keep as").selectOption("2");
    await page.locator("#keep").click();
    await page.locator("#prompt-status").filter({ hasText: "in your mask" }).waitFor();
    await page.locator("#carry").click();
    await page.locator("#stop-carrying").waitFor({ state: "hidden", timeout: 180_000 });
    const told = await page.textContent("#prompt-status");
    const count = Number.parseInt(told);
    assert.ok(count >= 1, told);
    await page.getByRole("button", { name: "Close", exact: true }).click();
    const kept = judged(await saved(page, "kept.nii.gz"), first);
    assert.ok(kept[0]["2"] > 0 && kept[1], JSON.stringify(kept));
    assert.ok(kept[2].length <= count && kept[2].at(-1) - kept[2][0] === kept[2].length - 1, "one run of slices");
    // The first answer was kept before it was carried on: its slice is the last that is taken back.
    while (await page.locator("#undo").isEnabled()) await page.locator("#undo").click();
    const back = judged(await saved(page, "taken-back.nii.gz"), first);
    assert.equal(back[2].length, 1, JSON.stringify(back));
});

/** Unpacks a zip; its names, its JSON files, and the words in the headers of its scans and masks. */
const UNZIP = `
import json, pathlib, sys, zipfile, nibabel
with zipfile.ZipFile(sys.argv[1]) as file:
    assert file.testzip() is None
    names = sorted(file.namelist())
    file.extractall(sys.argv[2])
notes = [json.loads((pathlib.Path(sys.argv[2]) / name).read_text()) for name in names if name.endswith(".json")]
headers = [nibabel.load(pathlib.Path(sys.argv[2]) / name).header for name in names if name.endswith(".nii.gz")]
words = [header[field].item().decode() for header in headers for field in ("descrip", "aux_file", "intent_name", "db_name")]
print(json.dumps({"names": names, "note": notes[0], "words": [word for word in words if word]}))`;

test("a corrected mask is saved for training, with a note of where it is from", { timeout: 900_000 }, async (t) => {
    const page = await visit(t, { query: `?view=axial&case=${first}` });
    const set = join(folder, "corrected");
    mkdirSync(set);
    const [site, id] = first.split("/");
    await page.getByLabel("Begin with").selectOption("native");
    await page.locator("#correct").click();
    for (const label of ["1", "2"]) {
        await page.locator(`#pens [value="${label}"]`).check({ force: true });
        await stroke(page, 0.45, 0.4 + 0.1 * label);
    }
    await page.locator("#save-for-training").click();
    assert.match(await notice(page, "correct"), /who corrected/);
    await page.getByLabel("Corrected by").fill("A. Reader");
    const unzipped = async (name) => {
        const coming = page.waitForEvent("download");
        await page.locator("#save-for-training").click();
        const path = join(folder, name);
        await (await coming).saveAs(path);
        return python(t, UNZIP, path, set);
    };
    const found = await unzipped("one.zip");
    if (!found) return;
    assert.deepEqual(found.names, [`${site}/${id}.json`, `${site}/${id}.nii.gz`, `${site}/${id}_mask.nii.gz`]);
    assert.deepEqual(found.words, []);
    const { madeBy, beganWith, changedBy, model, classes, date } = found.note;
    assert.deepEqual([madeBy, beganWith, changedBy], ["A. Reader", "native", ["brush"]]);
    const listed = await page.evaluate(async () => (await fetch("run.json")).json());
    assert.deepEqual([model.baseSha256, model.adapterSha256], [listed.base.sha256, listed.adapters[0].sha256]);
    assert.deepEqual(classes, listed.classes);
    assert.ok(Date.now() - Date.parse(date) < 600_000);

    // A scan of the user's own, whose name could be taken for the word "imaging".
    await page.locator("#pick-scan").setInputFiles(join(run.data, "phantom", id, "imaging.nii.gz"));
    await page.locator("#cases [aria-current]").filter({ hasText: "imaging" }).waitFor();
    await page.locator("#correct:not(:disabled)").click();
    await page.locator('#pens [value="1"]').check({ force: true });
    await stroke(page, 0.45, 0.5);
    const own = await unzipped("two.zip");
    assert.deepEqual([own.note.beganWith, own.note.model.adapterSha256], ["empty", null]);

    const manifests = join(folder, "manifests");
    flapsam("data", "import", set, "--classes", "kidney,tumour", "--test-share", "0", "--manifests", manifests);
    const table = readFileSync(join(manifests, "corrected.csv"), "utf8");
    assert.match(table, new RegExp(`${site}/${id}_mask.nii.gz`));
    assert.match(table, /imaging_1_mask.nii.gz/);
});
