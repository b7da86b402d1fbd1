// Who cannot see, or uses no pointer: axe-core's rules (WCAG 2.2 A and AA, and its best practices) in every state of the page.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { menu, visit } from "./setup.mjs";

const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/** What axe finds against the page as it is. */
async function violations(page) {
    // The page's policy runs no foreign script; what the browser itself evaluates is not of the page.
    await page.evaluate(axe);
    const { violations, passes } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    assert.ok(passes.length > 20, `only ${passes.length} rules had anything to look at`);
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
}

for (const colorScheme of ["light", "dark"]) {
    test(`axe finds nothing against the page, ${colorScheme}`, async (t) => {
        const page = await visit(t);
        await page.emulateMedia({ colorScheme });
        const hold = async (state) => assert.deepEqual(await violations(page), [], state);
        await hold("a case");
        await page.getByLabel("Score to sort by").selectOption("surface");
        await page.locator("#cases tr.site button").first().click();
        await page.locator("details.panel summary").click();
        await hold("sorted, folded, with its keys");
        for (const name of ["Window", "Tools"]) {
            await menu(page, name);
            await hold(`the menu ${name}`);
        }
        await page.locator("#open-beside").click();
        await page.locator("#beside-canvas").waitFor();
        await hold("a mask beside");
        await page.locator("#open-beside").click();
        await page.getByLabel("Search for cases").fill("nobody");
        await hold("nothing found");
        await page.getByLabel("Search for cases").fill("");
        await page.locator("#pick-scan").setInputFiles({ name: "text.nii", mimeType: "", buffer: Buffer.from("no scan") });
        await page.locator("#notices .notice").first().waitFor();
        await hold("a message");
        await page.setViewportSize({ width: 360, height: 740 });
        await hold("a phone");
    });
}

test("axe finds nothing against a finished segmentation and the prompts", async (t) => {
    const page = await visit(t);
    await page.locator("#segment").click();
    await page.locator("#save").waitFor({ timeout: 180_000 });
    assert.deepEqual(await violations(page), [], "a result");
    await page.locator("#correct").click();
    await page.locator("#pens").waitFor();
    assert.deepEqual(await violations(page), [], "a drawing");
    await page.locator("#ask").click();
    await page.locator("dialog[open]").waitFor();
    assert.deepEqual(await violations(page), [], "the prompts");
});
