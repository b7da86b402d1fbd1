/** What the browser keeps of the page, its run and its weights, so that it works without a network; and how to be rid of it. */

import { el, size } from "./dom";
import { sentence, warn } from "./notices";
import { keptWeights, removeWeights } from "./weights";

const OURS = "flapsam ";

export class KeptPanel {
    private readonly status = el("p", { id: "kept-status", class: "hint", role: "status" });
    private readonly remove = el("button", { type: "button", id: "delete-kept", hidden: true }, "Delete what is kept");

    constructor(place: HTMLElement) {
        this.remove.onclick = () => void this.delete();
        place.replaceChildren(this.status, this.remove);
    }

    /** Has the page kept, where the browser can. */
    async start(): Promise<void> {
        this.status.textContent = "Nothing is kept: this browser keeps pages of secure addresses only.";
        if (!("serviceWorker" in navigator)) return;
        try {
            await navigator.serviceWorker.register("sw.js");
            this.status.textContent = "Keeping the page, so that it opens without a network…";
            await navigator.serviceWorker.ready;
            await this.update();
        } catch (error) {
            this.status.textContent = `Nothing is kept: ${sentence(error)}`;
        }
    }

    /** Says how much is kept. */
    async update(): Promise<void> {
        if (!("serviceWorker" in navigator)) return;
        const names = (await caches.keys()).filter((name) => name.startsWith(OURS));
        const sizes = await Promise.all(names.map(async (name) => [name.includes(" page "), await sizeOf(name)] as const));
        const of = (page: boolean) => sizes.filter(([is]) => is === page).reduce((sum, [, bytes]) => sum + bytes, 0);
        const [page, run, weights] = [of(true), of(false), await keptWeights()];
        this.remove.hidden = page + run + weights === 0;
        if (page === 0) return;
        this.status.textContent =
            "Kept in this browser, so that the page opens without a network: " +
            `${size(page)} of the page, ${size(run)} of the run’s scans and masks, ${size(weights)} of weights.`;
    }

    private async delete(): Promise<void> {
        try {
            const ours = await navigator.serviceWorker.getRegistration();
            const names = (await caches.keys()).filter((name) => name.startsWith(OURS));
            await Promise.all([ours?.unregister(), removeWeights(), ...names.map((name) => caches.delete(name))]);
            this.remove.hidden = true;
            this.status.textContent = "All of it is deleted. The next visit keeps the page again.";
        } catch (error) {
            warn("kept", `What is kept cannot be deleted: ${sentence(error)}`);
        }
    }
}

async function sizeOf(name: string): Promise<number> {
    const cache = await caches.open(name);
    const answers = await Promise.all((await cache.keys()).map((key) => cache.match(key)));
    const sizes = answers.map(async (answer) => {
        const told = answer?.headers.get("Content-Length");
        return told ? Number(told) : ((await answer?.blob())?.size ?? 0);
    });
    return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0);
}
