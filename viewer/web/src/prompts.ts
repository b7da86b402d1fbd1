/** Asking SAM without an adapter: clicks and a box on a slice give its masks and scores. */

import type { Click, Plane, Prompt, Slice } from "../wasm/flapsam_viewer";
import { el } from "./dom";
import { sentence } from "./notices";
import type { Progress, Reply } from "./protocol";

/** A slice as it is looked at. */
export interface Looked {
    slice: Slice;
    /** From black to white. */
    window: [number, number];
    title: string;
}

export interface Sources {
    /** The slice at the crosshair, of a plane, or of the one that is shown. */
    look: (plane: Plane | null) => Promise<Looked>;
    /** Null if it was given up. */
    ask: (view: Looked, prompt: Prompt, onProgress: (progress: Progress) => void) => Promise<Reply | null>;
    /** Has a slice encoded before anybody asks about it; false if something else came between. */
    encode: (view: Looked) => Promise<boolean>;
    /** The slice so many above; null beyond the last one. */
    next: (view: Looked, by: number) => Promise<Looked | null>;
    /** Puts a mask of a slice, pixel by pixel, into the user's own as one label; `carried` from the slice beside, or asked for. */
    keep: (view: Looked, inside: Uint8Array, label: number, carried: boolean) => Promise<void>;
    /** Told that nobody waits for the answer any more. */
    onLeave: () => void;
    /** Told what failed. */
    onFailure: (error: unknown) => void;
}

type Place = [x: number, y: number];
type Box = [number, number, number, number];
type Mark = { click: Click } | { box: Box };
type Mode = "positive" | "negative" | "box";

const PLANES: [Plane | "", string][] = [
    ["", "the slice shown"],
    ["axial", "the axial slice"],
    ["coronal", "the coronal slice"],
    ["sagittal", "the sagittal slice"],
];
/** Slices beside the one that is asked about, in the order in which they are encoded ahead. */
const AHEAD = [1, -1, 2, -2];
const MODES: [Mode, string][] = [
    ["positive", "+ Object"],
    ["negative", "– Not object"],
    ["box", "Box"],
];
const HINT = "Click, or drag a box. Shift or the right button excludes.";
/** A pointer that moves farther than this, in CSS pixels, drags a box. */
const DRAG = 5;
/** A mask's colour, and its share over the slice's grey. */
const MASK = [[255, 170, 40], 110 / 255] as const;

export class PromptPanel {
    private view: Looked | null = null;
    /** The slice whose neighbours are encoded. */
    private ahead: Looked | null = null;
    private marks: Mark[] = [];
    private reply: Reply | null = null;
    /** Which mask the user chose; the best without one. */
    private chosen: number | null = null;
    private mode: Mode = "positive";
    private cursor: Place = [0, 0];
    /** The first corner of a box in the making. */
    private corner: Place | null = null;
    private busy = false;
    private again = false;

    private readonly plane = el("select", { id: "plane", "aria-label": "Plane of the slice" });
    private readonly start = el("button", { type: "button", id: "ask" }, "Ask about");
    private readonly dialog = el("dialog", { id: "prompts-dialog", "aria-labelledby": "slice-title" });
    private readonly title = el("h2", { id: "slice-title" });
    private readonly canvas = el("canvas", { role: "img", "aria-label": "The slice with the chosen mask" });
    private readonly over = el("div", { class: "marks" });
    private readonly pad = el(
        "div",
        {
            class: "pad",
            tabindex: 0,
            role: "application",
            "aria-label": "Slice. Arrow keys move the cursor, with Shift by ten; Enter marks, for a box its two corners.",
            "aria-describedby": "prompt-status",
        },
        this.canvas,
        this.over,
    );
    private readonly status = el("p", { id: "prompt-status", role: "status" });
    private readonly answers = el("fieldset", { class: "segments", hidden: true });
    private readonly label = el("select", { "aria-label": "Keep as" });
    private readonly keep = el("button", { type: "button", id: "keep" }, "Keep");
    private readonly carry = el("button", { type: "button", id: "carry" }, "Keep, and carry on");
    private readonly stop = el("button", { type: "button", id: "stop-carrying", hidden: true }, "Stop");
    private readonly keeping = el("div", { class: "row", hidden: true }, this.keep, this.carry, this.stop, "as ", this.label);
    /** Whether a mask is being carried through the slices. */
    private carrying = false;
    private readonly undo = el("button", { type: "button" }, "Undo");
    private readonly clear = el("button", { type: "button" }, "Clear");

    constructor(
        place: HTMLElement,
        private readonly sources: Sources,
    ) {
        this.start.onclick = () => void this.open();
        this.dialog.onclose = () => {
            this.carrying = false;
            sources.onLeave();
        };
        this.keep.onclick = () => void this.keepAnswer();
        this.carry.onclick = () => void this.carryOn();
        this.stop.onclick = () => {
            this.carrying = false;
            this.stop.disabled = true;
        };
        this.undo.onclick = () => this.mark(this.marks.slice(0, -1));
        this.clear.onclick = () => this.mark([]);
        const close = el("button", { type: "button", onclick: () => this.dialog.close() }, "Close");
        const modes = MODES.map(([mode, title]) => {
            const radio = el("input", { type: "radio", name: "prompt-mode", value: mode, checked: mode === this.mode });
            radio.onchange = () => {
                this.mode = mode;
                this.corner = null;
                this.drawMarks();
            };
            return el("label", {}, radio, el("span", {}, title));
        });
        this.dialog.append(
            el("div", { class: "row" }, this.title, close),
            el(
                "div",
                { class: "row" },
                el("fieldset", { class: "segments" }, el("legend", { class: "hidden" }, "A mark is"), ...modes),
                this.undo,
                this.clear,
            ),
            this.pad,
            this.answers,
            this.keeping,
            this.status,
        );
        this.listen();
        const hint = "The base without its adapter: click on something in a slice at the crosshair, or draw a box around it.";
        this.plane.append(...PLANES.map(([plane, title]) => el("option", { value: plane }, title)));
        place.replaceChildren(el("p", { class: "hint" }, hint), el("div", { class: "row" }, this.start, this.plane), this.dialog);
        this.setCase(false);
    }

    /** Whether there is a scan to ask about. */
    setCase(there: boolean): void {
        this.start.disabled = !there;
        this.dialog.close();
    }

    /** Names of the classes, background first. */
    setClasses(classes: string[]): void {
        this.label.replaceChildren(...classes.slice(1).map((name, index) => el("option", { value: index + 1 }, name)));
    }

    private async keepAnswer(): Promise<void> {
        const { view, reply } = this;
        if (!view || !reply) return;
        try {
            await this.sources.keep(view, mask(reply, this.best(), view.slice), Number(this.label.value), false);
            this.status.textContent = "Kept: it is in your mask, under Correct.";
        } catch (error) {
            this.status.textContent = sentence(error);
            this.sources.onFailure(error);
        }
    }

    /** Keeps the mask, and asks about the slices above and below with what was found in the one before. */
    private async carryOn(): Promise<void> {
        const { view, reply } = this;
        if (!view || !reply) return;
        const [first, label] = [mask(reply, this.best(), view.slice).slice(), Number(this.label.value)];
        let kept = 1;
        this.carrying = true;
        [this.keep.disabled, this.carry.disabled, this.stop.hidden, this.stop.disabled] = [true, true, false, false];
        try {
            await this.sources.keep(view, first, label, false);
            for (const by of [1, -1]) {
                let [at, found]: [Looked, Uint8Array] = [view, first];
                while (this.carrying) {
                    const next = await this.sources.next(at, by);
                    if (!next) break;
                    this.status.textContent = `${kept} slices kept; asking about slice ${next.slice.number} of ${next.slice.of}…`;
                    const answer = await this.sources.ask(next, follow(found, at.slice), () => {});
                    const best = answer && continued(answer, found, next.slice);
                    if (!best || !this.carrying) break;
                    await this.sources.keep(next, best, label, true);
                    kept++;
                    [at, found] = [next, best];
                }
            }
            this.status.textContent = `${kept} slices kept: they are in your mask, under Correct.`;
        } catch (error) {
            this.status.textContent = `${kept} slices kept; then: ${sentence(error)}`;
            this.sources.onFailure(error);
        } finally {
            this.carrying = false;
            [this.keep.disabled, this.carry.disabled, this.stop.hidden] = [false, false, true];
        }
    }

    private listen(): void {
        let from: { at: Place; x: number; y: number } | null = null;
        const dragged = (event: PointerEvent) =>
            from && Math.hypot(event.clientX - from.x, event.clientY - from.y) > DRAG ? from.at : null;
        this.pad.oncontextmenu = (event) => event.preventDefault();
        this.pad.onpointerdown = (event) => {
            from = { at: this.placeOf(event), x: event.clientX, y: event.clientY };
            this.pad.setPointerCapture(event.pointerId);
        };
        this.pad.onpointermove = (event) => {
            const corner = dragged(event);
            if (corner) this.drawMarks([...corner, ...this.placeOf(event)]);
        };
        this.pad.onpointercancel = () => {
            from = null;
            this.drawMarks();
        };
        this.pad.onpointerup = (event) => {
            const corner = dragged(event);
            from = null;
            this.cursor = this.placeOf(event);
            if (corner) this.add({ box: [...corner, ...this.cursor] });
            else this.place(event.button === 2 || event.shiftKey);
        };
        this.pad.onkeydown = (event) => {
            const by = event.shiftKey ? 10 : 1;
            const moves: Record<string, Place> = {
                ArrowLeft: [-by, 0],
                ArrowRight: [by, 0],
                ArrowUp: [0, -by],
                ArrowDown: [0, by],
            };
            const move = moves[event.key];
            if (move) this.cursor = this.within([this.cursor[0] + move[0], this.cursor[1] + move[1]]);
            else if (event.key === "Enter") this.place(event.shiftKey);
            else return;
            event.preventDefault();
            this.drawMarks();
        };
    }

    private async open(): Promise<void> {
        this.start.disabled = true;
        try {
            this.view = await this.sources.look((this.plane.value as Plane) || null);
        } catch (error) {
            this.sources.onFailure(error);
            return;
        } finally {
            this.start.disabled = false;
        }
        const { slice, title } = this.view;
        const [rows, columns] = slice.pixels;
        const [down, across] = slice.spacing;
        [this.canvas.width, this.canvas.height] = [columns, rows];
        this.pad.style.setProperty("--shape", String((columns * across) / (rows * down)));
        this.cursor = [Math.floor(columns / 2), Math.floor(rows / 2)];
        this.title.textContent = title;
        this.mark([]);
        this.dialog.showModal();
        this.pad.focus();
        void this.encodeAhead();
    }

    /** Has the slice encoded, and then those beside it, as long as nothing is asked. */
    private async encodeAhead(): Promise<void> {
        const { view } = this;
        if (this.ahead === view) return;
        const idle = () => view && this.view === view && this.dialog.open && !this.busy && !this.carrying;
        try {
            if (!view || !idle() || !(await this.sources.encode(view)) || !idle()) return;
            if (!this.marks.length && !this.corner) this.status.textContent = `${HINT} The slice is encoded: answers come at once.`;
            for (const by of AHEAD) {
                const beside = await this.sources.next(view, by);
                if (!idle() || (beside && !(await this.sources.encode(beside)))) return;
            }
            this.ahead = view;
        } catch {
            // Whoever asks is told the same.
        }
    }

    /** Marks the cursor's place as the mode says; `negative` makes a click one that excludes. */
    private place(negative: boolean): void {
        const [x, y] = this.cursor;
        if (this.mode !== "box") {
            this.add({ click: { x, y, positive: this.mode === "positive" && !negative } });
        } else if (this.corner) {
            this.add({ box: [...this.corner, x, y] });
        } else {
            this.corner = this.cursor;
            this.status.textContent = "Mark the opposite corner.";
            this.drawMarks();
        }
    }

    private add(mark: Mark): void {
        // A new box replaces the old one.
        this.mark([...("box" in mark ? this.marks.filter((old) => "click" in old) : this.marks), mark]);
    }

    private mark(marks: Mark[]): void {
        this.marks = marks;
        this.corner = null;
        this.chosen = null;
        this.reply = null;
        this.undo.disabled = this.clear.disabled = marks.length === 0;
        if (marks.length) void this.update();
        else this.status.textContent = HINT;
        this.drawAnswer();
        this.drawMarks();
    }

    private prompt(): Prompt {
        const clicks = this.marks.flatMap((mark) => ("click" in mark ? [mark.click] : []));
        const boxes = this.marks.flatMap((mark) => ("box" in mark ? [mark.box] : []));
        return { clicks, box: boxes.at(-1) ?? null };
    }

    /** Asks; once more if the marks changed meanwhile. */
    private async update(): Promise<void> {
        this.again = true;
        if (this.busy) return;
        this.busy = true;
        this.status.textContent = "Asking…";
        const encoding = ({ done, of }: Progress) => {
            this.status.textContent = `Asking; the slice is encoded to ${Math.round((100 * done) / of)} %…`;
        };
        try {
            while (this.again && this.view && this.marks.length) {
                this.again = false;
                const { view, marks } = this;
                const reply = await this.sources.ask(view, this.prompt(), encoding);
                if (!reply || this.view !== view || this.marks !== marks) continue;
                this.reply = reply;
                const time = `${Math.round(reply.milliseconds)} ms`;
                this.status.textContent = reply.kept ? `Answered in ${time}.` : `Slice encoded and answered in ${time}.`;
                this.drawAnswer();
            }
        } catch (error) {
            this.status.textContent = sentence(error);
            this.sources.onFailure(error);
        } finally {
            this.busy = false;
        }
        void this.encodeAhead();
    }

    private best(): number {
        const scores = this.reply?.scores ?? [];
        return this.chosen ?? scores.indexOf(Math.max(...scores));
    }

    /** What was marked, the cursor, and a box that is being drawn. */
    private drawMarks(growing: Box | null = null): void {
        const { clicks, box } = this.prompt();
        const frame = growing ?? box;
        this.over.replaceChildren(
            ...(frame ? [this.frame(frame)] : []),
            ...clicks.map(({ x, y, positive }) => this.dot([x, y], positive ? "positive" : "negative")),
            ...(this.corner ? [this.dot(this.corner, "corner")] : []),
            this.dot(this.cursor, "cursor"),
        );
    }

    /** The slice with the chosen mask, and all masks' scores. */
    private drawAnswer(): void {
        if (!this.view) return;
        const { slice, window } = this.view;
        paint(this.canvas, slice, window, this.reply && mask(this.reply, this.best(), slice));
        const radios = this.reply?.scores.map((score, index) => {
            const checked = index === this.best();
            const radio = el("input", { type: "radio", name: "prompt-mask", value: index, checked });
            radio.onchange = () => {
                this.chosen = index;
                this.drawAnswer();
                this.answers.querySelector<HTMLInputElement>(":checked")?.focus();
            };
            return el("label", {}, radio, el("span", {}, `Mask ${index + 1}: ${score.toFixed(3)}`));
        });
        this.answers.hidden = this.keeping.hidden = !radios;
        const legend = el("legend", { class: "hidden" }, "Masks with the scores that SAM gives them");
        this.answers.replaceChildren(legend, ...(radios ?? []));
    }

    private dot(at: Place, kind: string): HTMLElement {
        const [left, top] = this.percent(at);
        return el("i", { class: kind, style: `left: ${left}%; top: ${top}%` });
    }

    private frame([x, y, z, w]: Box): HTMLElement {
        const [left, top] = this.percent([Math.min(x, z), Math.min(y, w)]);
        const [right, bottom] = this.percent([Math.max(x, z), Math.max(y, w)]);
        const style = `left: ${left}%; top: ${top}%; width: ${right - left}%; height: ${bottom - top}%`;
        return el("i", { class: "box", style });
    }

    /** A whole number is a pixel's centre. */
    private percent([x, y]: Place): Place {
        const [rows, columns] = this.view?.slice.pixels ?? [1, 1];
        return [(100 * (x + 0.5)) / columns, (100 * (y + 0.5)) / rows];
    }

    private placeOf(event: PointerEvent): Place {
        const [rows, columns] = this.view?.slice.pixels ?? [1, 1];
        const box = this.canvas.getBoundingClientRect();
        const part = (at: number, length: number, count: number) => (at / length) * count - 0.5;
        return this.within([
            part(event.clientX - box.left, box.width, columns),
            part(event.clientY - box.top, box.height, rows),
        ]);
    }

    private within([x, y]: Place): Place {
        const [rows, columns] = this.view?.slice.pixels ?? [1, 1];
        const inside = (value: number, count: number) => Math.min(Math.max(value, 0), count - 1);
        return [inside(x, columns), inside(y, rows)];
    }
}

function mask(reply: Reply, index: number, { pixels: [rows, columns] }: Slice): Uint8Array {
    return reply.masks.subarray(index * rows * columns, (index + 1) * rows * columns);
}

/** Of a slice's mask less than this share has to be in its neighbour's, or the object is taken to end. */
const OVERLAP = 0.3;

/** What is asked about a neighbouring slice: a box around the mask, and the pixel of it that lies deepest in its middle row. */
function follow(inside: Uint8Array, { pixels: [rows, columns] }: Slice): Prompt {
    const box: Box = [columns, rows, -1, -1];
    let [sum, count] = [0, 0];
    inside.forEach((value, index) => {
        if (!value) return;
        const [x, y] = [index % columns, Math.floor(index / columns)];
        [box[0], box[1]] = [Math.min(box[0], x), Math.min(box[1], y)];
        [box[2], box[3]] = [Math.max(box[2], x), Math.max(box[3], y)];
        [sum, count] = [sum + y, count + 1];
    });
    const middle = Math.round(sum / Math.max(1, count));
    const row = [...inside.subarray(middle * columns, (middle + 1) * columns)].flatMap((value, x) => (value ? [x] : []));
    const x = row[Math.floor(row.length / 2)];
    return { clicks: x === undefined ? [] : [{ x, y: middle, positive: true }], box };
}

/** The answer's mask that goes on from the one before; null where the object ends. */
function continued(answer: Reply, before: Uint8Array, slice: Slice): Uint8Array | null {
    const masks = answer.scores.map((score, index) => {
        const inside = mask(answer, index, slice);
        let [both, either] = [0, 0];
        inside.forEach((value, at) => {
            const old = before[at] ?? 0;
            if (value && old) both++;
            if (value || old) either++;
        });
        return { inside, score, overlap: either ? both / either : 0 };
    });
    // The one that is most like the last: SAM's scores prefer now a part, now the whole.
    const best = masks.reduce((one, other) => (other.overlap > one.overlap ? other : one));
    return best.overlap >= OVERLAP ? best.inside.slice() : null;
}

/** Draws a slice in grey, and a mask over it. */
function paint(canvas: HTMLCanvasElement, slice: Slice, [black, white]: [number, number], mask: Uint8Array | null): void {
    const context = canvas.getContext("2d");
    if (!context) return;
    const [rows, columns] = slice.pixels;
    const image = context.createImageData(columns, rows);
    const [colour, share] = MASK;
    slice.values.forEach((value, index) => {
        const grey = Math.min(Math.max((255 * (value - black)) / (white - black), 0), 255);
        for (let channel = 0; channel < 3; channel++) {
            image.data[4 * index + channel] = mask?.[index] ? colour[channel]! * share + grey * (1 - share) : grey;
        }
        image.data[4 * index + 3] = 255;
    });
    context.putImageData(image, 0, 0);
}
