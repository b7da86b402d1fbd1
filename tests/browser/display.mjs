// What the page shows of a run.

import assert from "node:assert/strict";
import { test } from "node:test";

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

import { drop, folder, menu, metrics, nifti, pixels, python, run, visit } from "./setup.mjs";

const mean = (dice) => dice.reduce((sum, value) => sum + value, 0) / dice.length;

test("cases are listed by site with their Dice, worst first", async (t) => {
    const page = await visit(t);
    const sites = [...new Set(metrics.cases.map((one) => one.site))].sort();
    const wanted = sites.flatMap((site) => {
        const cases = metrics.cases.filter((one) => one.site === site);
        return cases.sort((one, other) => mean(one.dice) - mean(other.dice)).map((one) => `${site}/${one.case}`);
    });
    const listed = page.locator("#cases [data-case]");
    assert.deepEqual(await listed.evaluateAll((all) => all.map((one) => one.dataset.case)), wanted);
    const first = metrics.cases.find((one) => `${one.site}/${one.case}` === wanted[0]);
    const cells = await page.locator("#cases tbody tr:not(.site)").first().locator("td span").allTextContents();
    assert.deepEqual(cells, first.dice.map((dice) => dice.toFixed(3)));
});

test("every site has a line with its cases, and says if it is left behind", async (t) => {
    const page = await visit(t);
    const of = (site) => metrics.cases.filter((one) => one.site === site);
    const means = (cases) => mean(cases.map((one) => mean(one.dice)));
    for (const site of new Set(metrics.cases.map((one) => one.site))) {
        const line = page.getByRole("group", { name: `Site ${site}`, exact: true });
        assert.equal(await line.locator(".dot").count(), of(site).length);
        const said = await line.locator(".words").textContent();
        assert.ok(said.includes(`mean ${means(of(site)).toFixed(3)}`), said);
        const behind = means(metrics.cases.filter((one) => one.site !== site)) - means(of(site));
        assert.equal(said.includes("below the others"), behind >= 0.1, said);
    }
    const { site, case: id } = metrics.cases.at(-1);
    await page.locator(`.dot[aria-label*="${site}, "]`).last().click();
    await page.waitForURL((address) => address.searchParams.get("case")?.startsWith(`${site}/`));
    assert.equal(await page.locator(".dot.chosen").count(), 1);
    assert.ok(id);
});

test("the list is searched, folded and sorted by any score", async (t) => {
    const page = await visit(t);
    const listed = () =>
        page.locator("#cases [data-case]").evaluateAll((all) => all.filter((one) => one.checkVisibility()).map((one) => one.dataset.case));
    const all = await listed();
    const { site, case: id } = metrics.cases[1];
    await page.getByLabel("Search for cases").fill(id.toUpperCase());
    assert.deepEqual(await listed(), [`${site}/${id}`]);
    assert.match(await page.locator("#cases caption").textContent(), new RegExp(`1 of ${all.length}`));
    await page.getByLabel("Search for cases").fill("nobody");
    assert.match(await page.locator("#cases [role=status]").textContent(), /nobody/);
    await page.getByLabel("Search for cases").fill("");

    const fold = page.locator("#cases tr.site button").filter({ hasText: site });
    await fold.click();
    assert.equal(await fold.getAttribute("aria-expanded"), "false");
    assert.deepEqual(await listed(), all.filter((key) => !key.startsWith(`${site}/`)));
    await fold.click();

    // What has no distance, since a mask or the truth is empty, is worse than any that has.
    await page.getByLabel("Score to sort by").selectOption("hausdorff");
    const badness = (one) => {
        const there = one.hausdorff_95_mm.filter((value) => value !== null);
        return there.length ? mean(there) : Infinity;
    };
    const shown = await page.locator("#cases tbody tr:not(.site)").evaluateAll((rows) =>
        rows.map((row) => [row.querySelector("button").dataset.case, ...[...row.querySelectorAll("td span")].map((cell) => cell.textContent)]),
    );
    for (const [key, ...cells] of shown) {
        const one = metrics.cases.find((one) => `${one.site}/${one.case}` === key);
        assert.deepEqual(cells, one.hausdorff_95_mm.map((value) => (value === null ? "–" : value.toFixed(1))));
    }
    const order = shown.filter(([key]) => key.startsWith(`${site}/`)).map(([key]) => key);
    const distances = order.map((key) => badness(metrics.cases.find((one) => `${one.site}/${one.case}` === key)));
    assert.deepEqual(distances, [...distances].sort((one, other) => other - one));
    await page.locator("#worst").click();
    const chosen = new URL(page.url()).searchParams.get("case");
    const worst = Math.max(...metrics.cases.map(badness));
    assert.equal(badness(metrics.cases.find((one) => `${one.site}/${one.case}` === chosen)), worst);
});

test("long names, many classes and large values are there to be read", async (t) => {
    const sites = ["University Hospital", "BIDMC"];
    const crowded = (page) =>
        page.route("**/run.json", async (route) => {
            const answer = await route.fetch();
            const said = await answer.json();
            said.classes = ["background", "peripheral zone", "transition zone", "lesion", "urethra"];
            said.clip = [-1285.43, 20285.4];
            said.cases.forEach((one, at) => {
                one.site = sites[at % 2];
                one.id = `${one.site}_patient_0000${at}_baseline`;
                one.dice = one.surfaceDice = [0.5, 0.5, 0.5, 0.5];
                one.hausdorff95Mm = [285.4, 285.4, 285.4, null];
            });
            await route.fulfill({ response: answer, json: said });
        });
    const page = await visit(t, { query: "?view=axial", prepare: crowded });
    await page.getByLabel("Score to sort by").selectOption("hausdorff");
    const names = await page.locator("#cases [data-case]").allTextContents();
    assert.ok(names.every((name) => /^patient_0000\d_baseline$/.test(name)), `the site is not repeated in ${names}`);
    // A name breaks between its parts alone: its first part is in one line.
    const lines = await page.locator("#cases [data-case]").evaluateAll((all) =>
        all.map((one) => {
            const range = document.createRange();
            range.selectNodeContents(one.firstChild);
            return range.getClientRects().length;
        }),
    );
    assert.deepEqual(new Set(lines), new Set([1]));
    await menu(page, "Window");
    const cut = await page.locator("#window input, #cases td, #cases th").evaluateAll((all) =>
        all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.outerHTML),
    );
    assert.deepEqual(cut, []);
    assert.equal(await page.inputValue("#window-high"), "20285.4");
});

test("presets, a smooth scan and distances", async (t) => {
    const page = await visit(t, { query: "?view=axial" });
    await menu(page, "Window");
    await page.getByLabel("Preset window").selectOption({ label: "Abdomen" });
    assert.deepEqual([await page.inputValue("#window-low"), await page.inputValue("#window-high")], ["-160", "240"]);
    await page.locator("#window-low").fill("-100");
    await page.locator("#window-low").press("Enter");
    assert.equal(await page.getByLabel("Preset window").inputValue(), "", "no preset any more");
    // With labels alone nothing is smooth.
    const settled = async () => {
        // No menu over the images.
        await page.keyboard.press("Escape");
        await page.waitForTimeout(400);
        return pixels(page);
    };
    const before = await settled();
    await menu(page, "Tools");
    await page.locator("#smooth").check();
    const smooth = await settled();
    assert.notEqual(smooth.sum, before.sum);
    assert.ok(smooth.colours > before.colours, "values between the voxels'");
    await menu(page, "Tools");
    await page.locator("#smooth").uncheck();
    assert.equal((await settled()).sum, before.sum);

    await menu(page, "Tools");
    await page.locator("#measure").check();
    const at = await page.textContent("#readout");
    const box = await page.locator("#canvas").boundingBox();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    await page.mouse.move(x - 40, y);
    await page.mouse.down();
    await page.mouse.move(x + 40, y + 30, { steps: 4 });
    await page.mouse.up();
    await page.mouse.move(5, 5);
    const measured = await settled();
    assert.notEqual(measured.sum, before.sum, "a line with its length");
    assert.equal(await page.textContent("#readout"), at, "the crosshair stays");
    await menu(page, "Tools");
    await page.locator("#measure").uncheck();
    assert.equal((await settled()).sum, before.sum, "and it is gone");
});

test("keys on the images switch layers and windows, and go from case to case", async (t) => {
    const page = await visit(t);
    await page.locator("#canvas").focus();
    await page.keyboard.press("t");
    assert.ok(!(await page.locator('[data-layer="truth"]').isChecked()));
    await page.keyboard.press("T");
    assert.ok(await page.locator('[data-layer="truth"]').isChecked());
    const window = async () => `${await page.inputValue("#window-low")} ${await page.inputValue("#window-high")}`;
    const before = await window();
    const seen = [];
    for (let press = 0; press < 5; press++) {
        await page.keyboard.press("w");
        seen.push(await window());
    }
    assert.deepEqual(seen, ["0 80", "-160 240", "-1350 150", "-500 1300", before]);
    await page.keyboard.press("s");
    assert.ok(await page.locator("#smooth").isChecked());
    const listed = await page.locator("#cases [data-case]").evaluateAll((all) => all.map((one) => one.dataset.case));
    await page.keyboard.press(".");
    await page.waitForURL((address) => address.searchParams.get("case") === listed[1]);
    await page.locator("#canvas").focus();
    await page.keyboard.press(",");
    await page.waitForURL((address) => address.searchParams.get("case") === listed[0]);
});

test("the worst slice is the one where most voxels differ", async (t) => {
    const { site, case: id } = metrics.cases[0];
    const page = await visit(t, { query: `?view=axial&case=${site}/${id}` });
    const native = join(run.path, "predictions", site, `${id}.nii.gz`);
    const truth = join(run.data, "phantom", id, "segmentation.nii.gz");
    const script = `
import sys, nibabel, numpy
one, other = (numpy.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj) for path in sys.argv[1:])
print(*(one != other).sum(axis=(0, 1)))`;
    const counts = execFileSync(process.env.FLAPSAM_PYTHON, ["-c", script, native, truth], { encoding: "utf8" }).split(" ").map(Number);
    await menu(page, "Tools");
    await page.locator("#worst-slice").click();
    // The middle slice, where a case begins, may be the worst one.
    await page.waitForTimeout(3000);
    const at = Number.parseInt(await page.textContent("#slice-at"));
    assert.equal(counts[at - 1], Math.max(...counts));
});

test("a picture of the images has a scale and a legend", async (t) => {
    const page = await visit(t);
    const coming = page.waitForEvent("download");
    await menu(page, "Tools");
    await page.locator("#picture").click();
    const download = await coming;
    assert.match(download.suggestedFilename(), /^browser-1_.*\.png$/);
    const bytes = readFileSync(await download.path());
    const [width, height] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
    const canvas = await page.locator("#canvas").evaluate((one) => [one.width, one.height]);
    assert.equal(width, canvas[0]);
    assert.ok(height > canvas[1] + 40, "words below the images");
    // The images, and below them the colours of the legend.
    const seen = await page.evaluate(async ([data, above]) => {
        const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
        const sheet = new OffscreenCanvas(image.width, image.height);
        const pen = sheet.getContext("2d");
        pen.drawImage(image, 0, 0);
        const colours = (from, high) => {
            const { data } = pen.getImageData(0, from, image.width, high);
            const found = new Set();
            for (let at = 0; at < data.length; at += 4) found.add(data.slice(at, at + 3).join(" "));
            return found;
        };
        const swatch = document.querySelector('[data-name="truth"] .label .swatch').style.background;
        const [, colour] = swatch.match(/rgb\(([^)]*)\)/);
        return [colours(0, above).size, colours(above, image.height - above).has(colour.replaceAll(/[ ,]+/g, " "))];
    }, [bytes.toString("base64"), canvas[1]]);
    assert.ok(seen[0] > 100, `${seen[0]} colours`);
    assert.ok(seen[1], "the truth's colour is in the legend");
});

test("planes are drawn, and change with the slice, the view and the layers", async (t) => {
    const page = await visit(t);
    const seen = [await pixels(page)];
    assert.ok(seen[0].colours > 100, `${seen[0].colours} colours are a blank canvas`);
    const changed = async (what) => {
        await page.waitForTimeout(300);
        const now = await pixels(page);
        assert.notEqual(now.sum, seen.at(-1).sum, `nothing changed with ${what}`);
        seen.push(now);
    };
    await page.locator("#slice").fill("4");
    assert.match(await page.textContent("#slice-at"), /^4 of /);
    await changed("the slice");
    await page.locator('[data-layer="truth"]').uncheck();
    await changed("the truth switched off");
    await page.getByLabel("Opacity of Native", { exact: true }).fill("1");
    await changed("opacity");
    await page.locator('[data-name="native"] .label').first().click();
    await changed("a label switched off");
    await page.locator('[data-layer="missed"]').check();
    await page.waitForTimeout(2000);
    await changed("the map of differences");
    await page.locator("#views [value=coronal]").check({ force: true });
    await changed("the view");
    await menu(page, "Window");
    await page.locator("#window-high").fill("50");
    await page.locator("#window-high").press("Enter");
    await page.keyboard.press("Escape");
    await changed("the window");
});

test("a drag with the right button changes the window, and a double click resets it", async (t) => {
    const page = await visit(t, { query: "?view=axial" });
    const box = await page.locator("#canvas").boundingBox();
    const window = async () => [await page.inputValue("#window-low"), await page.inputValue("#window-high")];
    const before = await window();
    await page.mouse.move(box.x + 200, box.y + 200);
    await page.mouse.down({ button: "right" });
    await page.mouse.move(box.x + 260, box.y + 150, { steps: 5 });
    await page.mouse.up({ button: "right" });
    assert.notDeepEqual(await window(), before);
    await page.mouse.dblclick(box.x + 200, box.y + 200);
    assert.deepEqual(await window(), before);
});

test("a link leads to its case and view, and the back button to where one came from", async (t) => {
    const { site, case: id } = metrics.cases[2];
    const page = await visit(t, { query: `?run=browser-1&case=${site}/${id}&view=axial` });
    assert.equal(await page.locator("#cases [aria-current]").textContent(), id);
    assert.ok(await page.locator("#views [value=axial]").isChecked());
    assert.equal(await page.locator("#notices .notice").count(), 0);

    const other = metrics.cases[3];
    await page.locator(`[data-case="${other.site}/${other.case}"]`).click();
    await page.waitForURL((address) => address.searchParams.get("case") === `${other.site}/${other.case}`);
    assert.equal(new URL(page.url()).searchParams.get("view"), "axial");
    await page.goBack();
    await page.locator("#cases [aria-current]").filter({ hasText: id }).waitFor();
});

test("a link to another run or a case that is not there says so", async (t) => {
    const page = await visit(t, { query: "?run=other-7&case=Z/none" });
    const said = await page.locator("#notices .notice").last().textContent();
    assert.match(said, /Z\/none/);
});

test("slice, millimetres, value and labels are told under the pointer", async (t) => {
    const page = await visit(t, { query: "?view=axial" });
    const box = await page.locator("#canvas").boundingBox();
    const told = async (x, y) => {
        await page.mouse.move(box.x + x * box.width, box.y + y * box.height);
        return page.locator("#readout").innerText();
    };
    const [middle, aside] = [await told(0.5, 0.5), await told(0.42, 0.6)];
    assert.match(middle, /HU/);
    assert.match(middle, /mm\s+-?\d/);
    assert.match(middle, /truth/);
    assert.notEqual(middle, aside);
});

/** What the table of amounts says of a mask: by class, area and volume. */
const amounts = (page, mask) =>
    page.locator("#amounts").evaluate((table, mask) => {
        const column = [...table.querySelectorAll("thead th")].findIndex((one) => one.textContent === mask);
        const rows = [...table.querySelectorAll("tbody tr")];
        return rows.map((row) => [...row.children[column].children].map((one) => Number.parseFloat(one.textContent)));
    }, mask);

test("area in the slice shown and volume are told of each class", async (t) => {
    const { site, case: id } = metrics.cases[0];
    const page = await visit(t, { query: `?view=axial&case=${site}/${id}` });
    const script = `
import json, sys, nibabel, numpy
told = {}
for name, path in zip(("Truth", "Native"), sys.argv[1:]):
    mask = nibabel.as_closest_canonical(nibabel.load(path))
    labels, steps = numpy.asarray(mask.dataobj), mask.affine[:3, :3]
    volume = abs(numpy.linalg.det(steps)) / 1000
    told[name] = [[[float((labels == label).sum(axis=tuple(other for other in range(3) if other != axis))[at]
                          * numpy.linalg.norm(numpy.cross(*(steps[:, other] for other in range(3) if other != axis))))
                    for at in range(labels.shape[axis])] for axis in range(3)] + [float((labels == label).sum() * volume)]
                  for label in (1, 2)]
print(json.dumps(told))`;
    const truth = join(run.data, "phantom", id, "segmentation.nii.gz");
    const wanted = python(t, script, truth, join(run.path, "predictions", site, `${id}.nii.gz`));
    if (!wanted) return;
    for (const [view, axis] of [["axial", 2], ["coronal", 1], ["sagittal", 0]]) {
        await page.locator(`#views [value=${view}]`).check({ force: true });
        const at = Number.parseInt(await page.textContent("#slice-at")) - 1;
        for (const mask of ["Truth", "Native"]) {
            const found = await amounts(page, mask);
            assert.equal(found.length, 2);
            found.forEach(([area, volume], label) => {
                const of = wanted[mask][label];
                assert.ok(Math.abs(area - of[axis][at]) <= 0.51, `${mask} ${view}: ${area} mm² and ${of[axis][at]}`);
                assert.ok(Math.abs(volume - of[3]) <= 0.06, `${mask}: ${volume} ml and ${of[3]}`);
            });
        }
    }
    // A drawing has its own column, which follows the pen.
    await page.locator("#views [value=axial]").check({ force: true });
    await page.getByLabel("Begin with").selectOption("empty");
    await page.locator("#correct").click();
    await page.locator('#pens [value="2"]').check({ force: true });
    assert.deepEqual(await amounts(page, "Yours"), [[0, 0], [0, 0]]);
    const box = await page.locator("#canvas").boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width / 2 + 50, box.y + box.height / 2 + 10, { steps: 5 });
    await page.mouse.up();
    await page.waitForFunction(() => document.querySelector("#amounts tbody").lastChild.textContent.match(/[1-9]\d* mm²[^m]*ml$/));
    assert.deepEqual((await amounts(page, "Yours"))[0], [0, 0]);
});

test("surfaces of a mask are saved in the scan's own millimetres", { timeout: 900_000 }, async (t) => {
    const page = await visit(t);
    // An ellipsoid of 30, 21 and 24 mm, around a place off the middle, in a file whose axes go to the left and to the front.
    const dims = [64, 50, 40];
    const rows = [[-1.5, 0, 0, 50], [0, 1, 0, -20], [0, 0, 2, 7]];
    const inside = (index) => {
        const voxel = [index % dims[0], Math.floor(index / dims[0]) % dims[1], Math.floor(index / dims[0] / dims[1])];
        const mm = rows.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
        return Math.hypot((mm[0] - 4) / 30, (mm[1] - 6) / 21, (mm[2] - 45) / 24) <= 1;
    };
    const file = (value) => {
        const bytes = gunzipSync(nifti(dims, value));
        rows.flat().forEach((number, place) => bytes.writeFloatLE(number, 280 + 4 * place));
        return bytes;
    };
    await drop(page, "ellipsoid.nii", file((index) => (inside(index) ? 100 : 0)));
    await page.locator("#cases [aria-current]").filter({ hasText: "ellipsoid" }).waitFor();
    const labels = { name: "labels.nii", mimeType: "", buffer: file((index) => (inside(index) ? 1 : 0)) };
    await page.locator("#pick-truth").setInputFiles(labels);
    await page.locator('[data-layer="truth"]:enabled').waitFor();
    await page.waitForTimeout(1000);
    const coming = page.waitForEvent("download");
    await menu(page, "Tools");
    await page.locator("#meshes").click();
    const path = join(folder, "meshes.zip");
    await (await coming).saveAs(path);
    const script = `
import json, sys, zipfile, numpy
with zipfile.ZipFile(sys.argv[1]) as file:
    names = file.namelist()
    data = file.read(names[0])
count = int.from_bytes(data[80:84], "little")
triangles = numpy.frombuffer(data[84:], dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])["corners"].astype(float)
points = triangles.reshape(-1, 3)
edges = {}
for corners in numpy.round(triangles, 3):
    keys = [tuple(corner) for corner in corners]
    for one, other in zip(keys, keys[1:] + keys[:1]):
        edges[one, other] = edges.get((one, other), 0) + 1
closed = all(edges.get((other, one)) == times for (one, other), times in edges.items())
volume = numpy.einsum("ij,ij->i", triangles[:, 0], numpy.cross(triangles[:, 1], triangles[:, 2])).sum() / 6
print(json.dumps({"names": names, "count": [count, len(triangles)], "low": points.min(axis=0).tolist(),
                  "high": points.max(axis=0).tolist(), "volume": volume, "closed": closed}))`;
    const found = python(t, script, path);
    if (!found) return;
    t.diagnostic(JSON.stringify(found));
    assert.deepEqual(found.names, ["kidney.stl"]);
    assert.equal(...found.count);
    [4, 6, 45].forEach((middle, axis) => {
        const half = [30, 21, 24][axis];
        // Within a voxel, whose sides are 1 to 2 mm.
        assert.ok(Math.abs(found.low[axis] - (middle - half)) < 1.5, JSON.stringify(found));
        assert.ok(Math.abs(found.high[axis] - (middle + half)) < 1.5, JSON.stringify(found));
    });
    const wanted = (4 / 3) * Math.PI * 30 * 21 * 24;
    assert.ok(Math.abs(found.volume / wanted - 1) < 0.03, `${found.volume} and ${wanted} mm³`);
    assert.ok(found.closed, "every edge has two sides");
});

test("the images are worked by keyboard", async (t) => {
    const page = await visit(t);
    await page.locator("#canvas").focus();
    const before = await page.textContent("#slice-at");
    await page.keyboard.press("PageUp");
    const after = await page.textContent("#slice-at");
    assert.equal(Number.parseInt(after) - Number.parseInt(before), 1);
    await page.keyboard.press("4");
    assert.ok(await page.locator("#views [value=sagittal]").isChecked());
    assert.match(page.url(), /view=sagittal/);
    // Every control can be reached and has a name.
    const nameless = await page.evaluate(() =>
        [...document.querySelectorAll("button, input, select, canvas")]
            .filter((one) => {
                const labels = one.labels?.length ? one.labels[0].textContent : "";
                return !(one.getAttribute("aria-label") || labels || one.textContent.trim());
            })
            .map((one) => one.outerHTML),
    );
    assert.deepEqual(nameless, []);
});

test("the toolbar is one row, and its menus open and close within the page", async (t) => {
    const page = await visit(t, { query: "?view=axial" });
    const height = (of) => page.locator(of).first().evaluate((one) => one.getBoundingClientRect().height);
    for (const [width, rows] of [[360, 3], [1400, 1], [3840, 1]]) {
        await page.setViewportSize({ width, height: 900 });
        const row = await height(".menu summary");
        assert.ok((await height(".toolbar")) < rows * (row + 12), `more than ${rows} rows at ${width}`);
        for (const name of ["Window", "Tools"]) {
            await menu(page, name);
            const inside = page.locator("details.menu[open] > :not(summary)");
            assert.equal(await inside.count(), 1);
            const { left, right } = await inside.evaluate((one) => one.getBoundingClientRect().toJSON());
            assert.ok(left >= 0 && right <= width, `${name} from ${left} to ${right} at ${width}`);
        }
        await page.keyboard.press("Escape");
        assert.equal(await page.locator("details.menu[open]").count(), 0);
        assert.equal(await page.evaluate(() => document.activeElement.textContent.trim()), "Tools");
    }
    await menu(page, "Window");
    await page.locator("#canvas").focus();
    assert.equal(await page.locator("details.menu[open]").count(), 0);
    // What is white and black is told without the menu.
    const [low, high] = [await page.inputValue("#window-low"), await page.inputValue("#window-high")];
    assert.equal(await page.locator("#window-now").textContent(), `${low} to ${high}`);
});

test("the page fits a phone and a large screen", async (t) => {
    const page = await visit(t);
    for (const [width, height] of [[360, 740], [768, 1024], [3840, 2160]]) {
        await page.setViewportSize({ width, height });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${wide} pixels on a screen of ${width}`);
        assert.ok((await pixels(page)).colours > 100, `blank at ${width}`);
    }
});

/** Voxels of the scans below; a voxel's value is its index. */
const DIMS = [12, 10, 8];
const STRAIGHT = [
    [1.5, 0, 0, -9],
    [0, 2, 0, 4],
    [0, 0, 3, 30],
];
/** Two axes lie nearest to the one direction: by which of them one counts is the reader's choice. */
const OBLIQUE = [
    [-0.657, -0.677, 0.332, 0],
    [0.36, -0.669, -0.65, 0],
    [0.662, -0.307, 0.683, 0],
];

/** A header's fields by which it says of space what it says, and the rows, in millimetres, that this means. */
const HEADERS = {
    plain: { rows: STRAIGHT },
    "in microns": { rows: STRAIGHT, units: 3, scale: 1000 },
    "in metres": { rows: STRAIGHT, units: 1, scale: 0.001 },
    "an sform of zeros beside a qform": { rows: STRAIGHT, sform: 0, qform: true },
    "an sform of no numbers beside a qform": { rows: STRAIGHT, sform: NaN, qform: true },
    "a qform that the sform contradicts": { rows: OBLIQUE, qform: true },
    "strongly oblique": { rows: OBLIQUE },
    "no place for the voxels": { rows: STRAIGHT, offset: 0 },
    "a fourth dimension of none": { rows: STRAIGHT, fourth: 0 },
};

function scanOf({ rows, units = 2, scale = 1, sform, qform = false, offset = 352, fourth }) {
    const count = DIMS.reduce((all, side) => all * side, 1);
    const file = gunzipSync(nifti(DIMS, (index) => index, count));
    file[123] = units;
    file.writeFloatLE(offset, 108);
    if (fourth !== undefined) {
        file.writeInt16LE(4, 40);
        file.writeInt16LE(fourth, 48);
    }
    rows.flat().forEach((value, place) => file.writeFloatLE(sform ?? value * scale, 280 + 4 * place));
    if (qform) {
        // Without any turn: the straight rows.
        file.writeInt16LE(1, 252);
        STRAIGHT.forEach((row, axis) => {
            file.writeFloatLE(row[axis], 80 + 4 * axis);
            file.writeFloatLE(row[3], 268 + 4 * axis);
        });
    }
    return file;
}

for (const [name, header] of Object.entries(HEADERS)) {
    test(`the images and the engine read a header alike: ${name}`, async (t) => {
        const page = await visit(t);
        const { rows } = header;
        await drop(page, "own.nii", scanOf(header));
        await page.locator("#slice-at").filter({ hasText: /\d+ of \d+/ }).waitFor();
        for (const slice of ["2", "5"]) {
            await page.locator("#slice").fill(slice);
            const facts = await page.locator("#readout div").evaluateAll((all) =>
                Object.fromEntries(all.map((one) => [one.querySelector("dt").textContent, one.querySelector("dd").textContent])),
            );
            const mm = facts.mm.split(", ").map(Number);
            const index = Number(facts.Value ?? facts.HU);
            const voxel = [index % DIMS[0], Math.floor(index / DIMS[0]) % DIMS[1], Math.floor(index / DIMS[0] / DIMS[1])];
            // What is drawn at a place lies there: within a voxel, since the crosshair is between them.
            const apart = rows.map((row, axis) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3] - mm[axis]);
            const size = Math.max(...[0, 1, 2].map((axis) => Math.hypot(...rows.map((row) => row[axis]))));
            assert.ok(Math.hypot(...apart) < size, `voxel ${voxel} is drawn at ${mm}`);
            // And it is what the engine takes to be there.
            await page.click("#ask");
            await page.locator("#prompts-dialog[open]").waitFor();
            const title = page.locator("#prompts-dialog").getByText(/axial slice \d+ of \d+/);
            const [, number, of] = (await title.textContent()).match(/axial slice (\d+) of (\d+)/).map(Number);
            assert.equal(of, DIMS[2]);
            assert.ok(Math.abs(number - 1 - voxel[2]) <= 1, `slice ${number} is asked, ${voxel[2] + 1} is shown`);
            await page.keyboard.press("Escape");
        }
    });
}
