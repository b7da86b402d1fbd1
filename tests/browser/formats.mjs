// Scans of other formats than NIfTI.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { deflateSync, gzipSync } from "node:zlib";

import { choose, dropAll, dropFolder, folder, metrics, notice, python, root, run, saveMask, segment, visit } from "./setup.mjs";

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

test("a folder of DICOM files is segmented as the scan that it was, and its mask names nobody", { timeout: 900_000 }, async (t) => {
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

test("of several series in a dropped folder one is chosen by name", { timeout: 900_000 }, async (t) => {
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
        ["enhanced", /enhanced\.dcm have scalings of their own/],
        ["nothing", /no DICOM series/],
    ];
    for (const [kind, sentence] of refused) {
        await dropFolder(page, resolve(made, kind));
        assert.match(await notice(page, "file"), sentence);
        await page.locator("#notices .close").click();
    }
});

const DIMS = [12, 10, 8];
const COUNT = DIMS[0] * DIMS[1] * DIMS[2];
/** Voxel indices to millimetres to the right, to the front and up: oblique, and no axis as long as another. */
const ROWS = [
    [-0.9, 0.4, 0.3, 21],
    [0.35, -1.9, 0.5, -4.5],
    [0.2, 0.3, 2.9, 30],
];
/** A voxel's value is its index and ten more: the first bytes are a line feed's. */
const voxels = (kind = Int16Array) => Buffer.from(kind.from({ length: COUNT }, (_, index) => index + 10).buffer);
const swapped = () => Buffer.from(voxels()).swap16();
/** The axes' steps and the origin in a space whose axes point so along ours. */
const steps = (signs) => [0, 1, 2].map((axis) => ROWS.map((row, at) => signs[at] * row[axis]));
const origin = (signs) => ROWS.map((row, at) => signs[at] * row[3]);
const LPS = [-1, -1, 1];

function nrrd({ space, signs, type = "short", encoding = "raw", endian = "little", end = "\n", more = "" }, data) {
    const directions = steps(signs).map((step) => `(${step})`).join(" ");
    const lines = ["NRRD0004", "# by hand", `type: ${type}`, "dimension: 3", `space: ${space}`, `sizes: ${DIMS.join(" ")}`];
    lines.push(`space directions: ${directions}`, `space origin: (${origin(signs)})`, `endian: ${endian}`, `encoding: ${encoding}`);
    return Buffer.concat([Buffer.from([...lines, ...(more ? [more] : []), "", ""].join(end)), data]);
}

function meta({ type = "MET_SHORT", file = "LOCAL", place = "Offset", order = "False", packed = "False" } = {}, data) {
    const lengths = steps(LPS).map((step) => Math.hypot(...step));
    const turned = steps(LPS).flatMap((step, axis) => step.map((part) => part / lengths[axis]));
    const lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", `BinaryDataByteOrderMSB = ${order}`];
    lines.push(`CompressedData = ${packed}`, `TransformMatrix = ${turned.join(" ")}`, `${place} = ${origin(LPS).join(" ")}`);
    lines.push(`ElementSpacing = ${lengths.join(" ")}`, `DimSize = ${DIMS.join(" ")} `, `ElementType = ${type}`);
    return Buffer.concat([Buffer.from([...lines, `ElementDataFile = ${file}`, ""].join("\n")), data]);
}

const lps = { space: "left-posterior-superior", signs: LPS };
const ITK = {
    "NRRD, LPS": [["own.nrrd", nrrd(lps, voxels())]],
    "NRRD, RAS, packed": [["own.nrrd", nrrd({ space: "RAS", signs: [1, 1, 1], encoding: "gzip" }, gzipSync(voxels()))]],
    "NRRD, LAS, big-endian, lines of DOS": [
        ["own.nrrd", nrrd({ space: "LAS", signs: [-1, 1, 1], endian: "big", end: "\r\n" }, swapped())],
    ],
    "NHDR and its voxels": [
        ["own.nhdr", nrrd({ ...lps, more: "data file: Voxels.raw" }, Buffer.alloc(0))],
        ["Voxels.raw", voxels()],
    ],
    "MHA": [["own.mha", meta({}, voxels())]],
    "MHA, packed floats": [["own.mha", meta({ type: "MET_FLOAT", packed: "True", place: "Position" }, deflateSync(voxels(Float32Array)))]],
    "MHD and its voxels, big-endian": [
        ["own.mhd", meta({ file: "own.raw", order: "True", place: "Origin" }, Buffer.alloc(0))],
        ["own.raw", swapped()],
    ],
};

const AFFINE = `
import json, sys, nibabel
print(json.dumps(nibabel.load(sys.argv[1]).affine[:3].tolist()))`;

for (const [name, files] of Object.entries(ITK)) {
    test(`voxels lie where their file says: ${name}`, async (t) => {
        const page = await visit(t, { query: "?view=axial" });
        await dropAll(page, files);
        await page.locator("#cases [aria-current]").filter({ hasText: "own.nii" }).waitFor();
        await page.locator("#slice-at").filter({ hasText: "of 8" }).waitFor();
        for (const slice of ["2", "6"]) {
            await page.locator("#slice").fill(slice);
            const { mm, value } = await told(page);
            const index = value - 10;
            const voxel = [index % DIMS[0], Math.floor(index / DIMS[0]) % DIMS[1], Math.floor(index / DIMS[0] / DIMS[1])];
            const apart = ROWS.map((row, axis) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3] - mm[axis]);
            assert.ok(Math.hypot(...apart) < 3.2, `voxel ${voxel} is drawn at ${mm}`);
        }
        await page.getByLabel("Begin with").selectOption("empty");
        await page.locator("#correct").click();
        const coming = page.waitForEvent("download");
        await page.locator("#save-correction").click();
        const path = join(folder, "itk.nii.gz");
        await (await coming).saveAs(path);
        const affine = python(t, AFFINE, path);
        if (!affine) return;
        const worst = Math.max(...affine.flatMap((row, at) => row.map((value, column) => Math.abs(value - ROWS[at][column]))));
        assert.ok(worst < 1e-5, JSON.stringify(affine));
    });
}

/** Where the crosshair is, and the value there. */
async function told(page) {
    const facts = await page.locator("#readout div").evaluateAll((all) =>
        Object.fromEntries(all.map((one) => [one.querySelector("dt").textContent, one.querySelector("dd").textContent])),
    );
    return { mm: facts.mm.split(", ").map(Number), value: Number(facts.Value ?? facts.HU) };
}

test("what NRRD and MetaImage files leave open is refused with a sentence", async (t) => {
    const page = await visit(t);
    const none = nrrd({ space: "LPS", signs: LPS }, voxels()).toString("latin1").replace(/space directions.*\n/, "");
    const refused = [
        [[["own.nrrd", Buffer.from(none, "latin1")]], /does not say where in space/],
        [[["own.nrrd", nrrd({ space: "scanner-xyz", signs: LPS }, voxels())]], /does not say where in space/],
        [[["own.nrrd", nrrd({ ...lps, encoding: "ascii" }, voxels())]], /encoding, ascii/],
        [[["own.nrrd", nrrd({ ...lps, type: "block" }, voxels())]], /type block/],
        [[["own.nrrd", nrrd({ ...lps, encoding: "gzip" }, voxels())]], /damaged or cut off/],
        [[["own.mha", meta({}, voxels().subarray(0, 100))]], /cut off: 100 of 1920 bytes/],
        [[["own.mhd", meta({ file: "own.raw" }, Buffer.alloc(0))]], /own\.raw; choose or drop both/],
    ];
    for (const [files, sentence] of refused) {
        await dropAll(page, files);
        assert.match(await notice(page, "file"), sentence);
        await page.locator("#notices .close").click();
    }
});
