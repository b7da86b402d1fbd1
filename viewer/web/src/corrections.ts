/** The panel in which a mask is corrected by hand: a brush and an eraser on the images, and the file that comes of it. */

import { byId, el } from "./dom";
import { colour, type Colour } from "./layers";

export type Start = "empty" | "native" | "browser" | "truth";

const STARTS: [Start, string][] = [
    ["native", "the native mask"],
    ["browser", "the browser's mask"],
    ["truth", "the truth"],
    ["empty", "nothing"],
];
/** Diameters of the pen, voxels. */
const SIZES = [1, 3, 5, 9, 15];

export interface Tools {
    onStart: (from: Start) => void;
    onPen: (pen: { label: number; size: number } | null) => void;
    onStep: (back: boolean) => void;
    onSave: () => void;
    /** With the name of whoever corrected the mask. */
    onSaveForTraining: (name: string) => void;
    onDiscard: () => void;
}

export class CorrectionPanel {
    private classes: string[] = [];
    private readonly from = el("select", { id: "correct-from", "aria-label": "Begin with" });
    private readonly begin = el("button", { type: "button", id: "correct" }, "Correct");
    private readonly start = el("div", { class: "row" }, this.begin, el("span", { class: "hint" }, "from"), this.from);
    private readonly pens = el("fieldset", { class: "segments", id: "pens" });
    private readonly size = el("select", { "aria-label": "Size of the pen" });
    private readonly undo = el("button", { type: "button", id: "undo" }, "Undo");
    private readonly redo = el("button", { type: "button", id: "redo" }, "Redo");
    private readonly tools = el("div", { class: "drawing", hidden: true });
    private readonly name = el("input", { type: "text", id: "corrector", autocomplete: "name" });
    private readonly status = el("p", { class: "hint", role: "status" });

    constructor(
        place: HTMLElement,
        private readonly calls: Tools,
    ) {
        this.size.append(...SIZES.map((size) => el("option", { value: size }, `${size} voxel${size > 1 ? "s" : ""} wide`)));
        this.size.value = "3";
        this.size.onchange = () => this.tellPen();
        this.begin.onclick = () => calls.onStart(this.from.value as Start);
        this.undo.onclick = () => calls.onStep(true);
        this.redo.onclick = () => calls.onStep(false);
        const save = el("button", { type: "button", id: "save-correction", class: "primary", onclick: calls.onSave });
        save.textContent = "Save mask (NIfTI)";
        const discard = el("button", { type: "button", id: "discard", onclick: calls.onDiscard }, "Discard");
        const train = el("button", { type: "button", id: "save-for-training" }, "Save for training (zip)");
        train.title = "The scan, the mask and a note of where it is from, as 'flapsam data import' takes them";
        train.onclick = () => calls.onSaveForTraining(this.name.value.trim());
        const who = el("label", { class: "named" }, "Corrected by ", this.name);
        const steps = el("div", { class: "row" }, this.undo, this.redo, discard);
        this.tools.append(this.pens, this.size, steps, save, who, train);
        place.replaceChildren(this.start, this.tools, this.status);
        this.setCase(false);
    }

    /** Names of the classes, background first. */
    setClasses(classes: string[]): void {
        this.classes = classes;
    }

    /** Whether there is a scan to draw on. */
    setCase(there: boolean): void {
        this.begin.disabled = !there;
        this.ended();
    }

    /** The masks that there are to begin with. */
    setStarts(there: Start[]): void {
        const chosen = this.from.value;
        const options = STARTS.filter(([start]) => there.includes(start));
        this.from.replaceChildren(...options.map(([start, title]) => el("option", { value: start }, title)));
        if (there.includes(chosen as Start)) this.from.value = chosen;
    }

    drawing(): void {
        const labels = this.classes.slice(1).map((name, index) => this.pen(String(index + 1), name, index + 1));
        this.pens.replaceChildren(
            el("legend", { class: "hidden" }, "A drag on a plane"),
            this.pen("look", "Look", null),
            ...labels,
            this.pen("0", "Eraser", null),
        );
        this.start.hidden = true;
        this.tools.hidden = false;
        this.stroke(false, false);
        this.status.textContent = "Choose a class, and drag on a plane. Look moves the crosshair again.";
        this.tellPen();
    }

    ended(): void {
        this.start.hidden = false;
        this.tools.hidden = true;
        this.status.textContent = "A brush and an eraser on the images; what you draw stays on this device.";
    }

    stroke(undoable: boolean, redoable: boolean): void {
        this.undo.disabled = !undoable;
        this.redo.disabled = !redoable;
    }

    say(text: string): void {
        this.status.textContent = text;
    }

    private pen(value: string, title: string, label: number | null): HTMLElement {
        const radio = el("input", { type: "radio", name: "pen", value, checked: value === "look" });
        radio.onchange = () => this.tellPen();
        const swatch = label === null ? [] : [el("i", { class: "swatch", style: `background: rgb(${ink(label).join(" ")})` })];
        return el("label", {}, radio, el("span", {}, ...swatch, title));
    }

    private tellPen(): void {
        const chosen = byId("pens").querySelector<HTMLInputElement>(":checked")?.value ?? "look";
        const size = Number(this.size.value);
        this.calls.onPen(chosen === "look" ? null : { label: Number(chosen), size });
    }
}

/** The colour that a label is drawn in. */
export function ink(label: number): Colour {
    return colour("browser", label);
}
