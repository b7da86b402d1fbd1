/** The panel that segments the case in the browser, and what came of it. */

import type { Comparison } from "../wasm/flapsam_viewer";
import { duration, el, size } from "./dom";
import type { Outcome, Progress } from "./protocol";

/** A finished segmentation, compared with what there is. */
export interface Result {
    outcome: Outcome;
    truth: Comparison | null;
    native: Comparison | null;
    /** What the run says of the case; nothing of a user's own scan. */
    recorded: Recorded | null;
}

/** Dice by class from a run's record. */
export interface Recorded {
    /** Of the native prediction, or of several models on average. */
    of: string;
    dice: number[];
}

export interface Buttons {
    onRun: () => void;
    onCancel: () => void;
    onSave: () => void;
}

export class RunPanel {
    private readonly start = el("button", { type: "button", id: "segment", class: "primary" }, "Segment this case");
    private readonly stop = el("button", { type: "button", id: "cancel", hidden: true }, "Cancel");
    private readonly save = el("button", { type: "button", id: "save", hidden: true }, "Save mask (NIfTI)");
    private readonly bar = el("progress", { max: 1, value: 0, hidden: true, "aria-label": "Slices segmented" });
    private readonly status = el("p", { id: "status", role: "status" });
    private readonly result = el("div", { id: "result" });

    constructor(place: HTMLElement, buttons: Buttons) {
        this.start.onclick = buttons.onRun;
        this.stop.onclick = buttons.onCancel;
        this.save.onclick = buttons.onSave;
        const row = el("div", { class: "row" }, this.start, this.stop, this.save);
        place.replaceChildren(row, this.bar, this.status, this.result);
        this.setCase(false);
    }

    /** Whether there is a scan to segment. */
    setCase(there: boolean): void {
        this.start.disabled = !there;
        this.save.hidden = true;
        this.status.textContent = there ? "Runs the adapter on this device; nothing is uploaded." : "Choose a case.";
        this.result.replaceChildren();
    }

    running(): void {
        this.start.hidden = true;
        this.stop.hidden = false;
        this.stop.disabled = false;
        this.save.hidden = true;
        this.bar.hidden = false;
        this.bar.removeAttribute("value");
        // Screen readers follow the bar, and are told the end.
        this.status.setAttribute("aria-live", "off");
        this.status.textContent = "Loading the network…";
        this.result.replaceChildren();
        this.stop.focus();
    }

    fetching(received: number, of: number): void {
        this.bar.max = of;
        this.bar.value = received;
        this.status.textContent = `Loading the network… ${size(received)} of ${size(of)}`;
    }

    progress({ done, of, milliseconds }: Progress): void {
        this.bar.max = of;
        this.bar.value = done;
        const left = done ? ((milliseconds / done) * (of - done)) / 1000 : null;
        const time = left === null ? "; the first ones take longest" : `, ${duration(left)} left`;
        this.status.textContent = `${done} of ${of} slices${time}`;
    }

    cancelling(): void {
        this.stop.disabled = true;
        this.status.textContent = "Cancelling…";
    }

    /** The end of a run: finished (with what follows by `show`), cancelled or failed. */
    ended(how: string): void {
        const focused = document.activeElement === this.stop;
        this.start.hidden = false;
        this.stop.hidden = true;
        this.bar.hidden = true;
        this.status.setAttribute("aria-live", "polite");
        this.status.textContent = how;
        if (focused) this.start.focus();
    }

    show(result: Result): void {
        const { outcome, truth, native, recorded } = result;
        const each = outcome.milliseconds / Math.max(1, outcome.slices);
        const device = outcome.device.backend === "webgpu" ? "WebGPU" : "the CPU";
        this.ended(`${outcome.slices} slices in ${duration(outcome.milliseconds / 1000)} on ${device}.`);
        this.save.hidden = false;
        const facts = el("dl", { class: "facts" });
        const fact = (name: string, value: string, key: string) =>
            facts.append(el("dt", {}, name), el("dd", { "data-fact": key }, value));
        fact("A slice", `${each.toFixed(1)} ms`, "milliseconds");
        if (native) fact("Same as native", agreement(native), "agreement");
        else if (recorded) fact("Same as native", "unknown: the run kept no mask of this case by this model", "agreement");
        this.result.replaceChildren(facts, table(outcome, truth, recorded));
    }
}

/** The share of equal voxels; never rounded up to all of them. */
function agreement({ equal, voxels }: Comparison): string {
    const different = voxels - equal;
    if (different === 0) return `100 % of ${voxels.toLocaleString("en")} voxels`;
    const percent = Math.floor((100_000 * equal) / voxels) / 1000;
    return `${percent} % of voxels (${different.toLocaleString("en")} differ)`;
}

function table(outcome: Outcome, truth: Comparison | null, recorded: Recorded | null): HTMLElement {
    const titles = ["Class", "ml", ...(truth ? ["Dice"] : []), ...(recorded ? [recorded.of] : [])];
    const rows = outcome.classes.map((found, index) => {
        const cells = [found.millilitres.toFixed(1)];
        if (truth) cells.push(truth.dice[index]?.toFixed(4) ?? "");
        if (recorded) cells.push(recorded.dice[index]?.toFixed(4) ?? "");
        return el("tr", {}, el("th", { scope: "row" }, found.class), ...cells.map((text) => el("td", {}, text)));
    });
    const head = el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)));
    return el("table", { class: "result" }, el("thead", {}, head), el("tbody", {}, ...rows));
}
