/** What is drawn and kept of a scan: one drawing at a time, those of other cases are put aside until they are back. */

import type { Slice } from "../wasm/flapsam_viewer";
import { CorrectionPanel, ink, type Start } from "./corrections";
import { byId } from "./dom";
import type { Engine } from "./engine";
import { clear, sentence, warn } from "./notices";
import type { Promised } from "./protocol";
import type { Stage } from "./stage";

/** What changed a drawing: a pen, an answer of SAM's, or one that went on from the slice beside. */
export type Means = "brush" | "SAM" | "carried";

/** What a drawing began with, and what changed it since. */
interface Origin {
    from: Start;
    by: Set<Means>;
}

/** A corrected mask that is saved for training. */
export interface Corrected {
    mask: Uint8Array;
    subject: Subject;
    beganWith: Start;
    changedBy: Means[];
    /** Whoever corrected it. */
    name: string;
}

/** The case that is drawn on. */
export interface Subject {
    key: string;
    scan: Promised;
    /** Masks to begin with. */
    masks: Partial<Record<Start, Uint8Array | null>>;
}

export class Correcting {
    private subject: Subject | null = null;
    private classes: string[] = [];
    /** Of the drawing; null without one. */
    private origin: Origin | null = null;
    /** Drawings of cases that are not shown, by their names. */
    private readonly aside = new Map<string, { drawn: Uint8Array; origin: Origin }>();
    private readonly panel = new CorrectionPanel(byId("correct-panel"), {
        onStart: (from) => void this.safely(() => this.start(this.subject?.masks[from] ?? null, { from, by: new Set() })),
        onPen: (pen) => {
            if (this.stage.paper) this.stage.paper.pen = pen;
        },
        onStep: (back) => this.stage.paper?.step(back),
        onSave: () => void this.safely(() => this.save()),
        onSaveForTraining: (name) => void this.safely(() => this.saveForTraining(name)),
        onDiscard: () => this.discard(),
    });

    constructor(
        private readonly stage: Stage,
        private readonly engine: Engine,
        private readonly onSave: (mask: Uint8Array, key: string) => void,
        private readonly onSaveForTraining: (corrected: Corrected) => Promise<void>,
    ) {
        window.addEventListener("beforeunload", (event) => {
            if (this.origin || this.aside.size > 0) event.preventDefault();
        });
    }

    setClasses(classes: string[]): void {
        this.classes = classes;
        this.panel.setClasses(classes);
    }

    stroke(undoable: boolean, redoable: boolean, byPen: boolean): void {
        if (byPen) this.origin?.by.add("brush");
        this.panel.stroke(undoable, redoable);
    }

    /** Puts the drawing aside before another case is shown. */
    async leave(): Promise<void> {
        const { subject, origin } = this;
        const drawn = origin && (await this.stage.paper?.drawing());
        if (subject && drawn) this.aside.set(subject.key, { drawn, origin });
        this.subject = null;
        this.origin = null;
        this.panel.setCase(false);
    }

    /** A case is shown; its drawing is taken up again. */
    async show(subject: Subject): Promise<void> {
        this.subject = subject;
        this.panel.setCase(true);
        this.offer();
        const aside = this.aside.get(subject.key);
        if (!aside) return;
        await this.safely(async () => {
            await this.start(aside.drawn, aside.origin);
            // Only now, or what cannot be drawn would be lost.
            this.aside.delete(subject.key);
        });
    }

    /** There is another mask to begin with. */
    offer(masks: Subject["masks"] = {}): void {
        if (!this.subject) return;
        Object.assign(this.subject.masks, masks);
        const there = (["native", "browser", "truth"] as const).filter((start) => this.subject?.masks[start]);
        this.panel.setStarts([...there, "empty"]);
    }

    /** Puts an answer about a slice into the drawing, or begins one with it. */
    async keep(slice: Slice, inside: Uint8Array, label: number, by: Means): Promise<void> {
        const { subject } = this;
        if (!subject) return;
        const origin = this.origin ?? { from: "empty", by: new Set() };
        const drawn = this.origin ? ((await this.stage.paper?.drawing()) ?? null) : null;
        const { scan } = subject;
        const mask = await this.engine.keep({ scan, drawn, slice, inside, label, classes: this.classes.length });
        if (this.subject !== subject) return;
        origin.by.add(by);
        await this.start(mask, origin);
    }

    private async start(mask: Uint8Array | null, origin: Origin): Promise<void> {
        const paper = this.stage.paper;
        if (!paper) throw new Error("The images are not drawn, so there is nothing to draw on.");
        const restated = mask && (await this.engine.restate(mask));
        await paper.draw(restated, this.classes.slice(1).map((_, index) => ink(index + 1)));
        if (!this.origin) this.panel.drawing();
        this.origin = origin;
    }

    private async save(): Promise<void> {
        const { subject } = this;
        const mask = await this.mask();
        if (!subject || !mask) return;
        this.onSave(mask, subject.key);
        this.panel.say("Saved with the scan's own grid and header.");
    }

    private async saveForTraining(name: string): Promise<void> {
        if (!name) throw new Error("Say who corrected the mask; the name goes into the note beside it.");
        const { subject, origin } = this;
        const mask = await this.mask();
        if (!subject || !origin || !mask) return;
        await this.onSaveForTraining({ mask, subject, beganWith: origin.from, changedBy: [...origin.by], name });
        this.panel.say("Saved: unzip it into your data's folder, and pass that to flapsam data import.");
    }

    /** The drawing as a file with the scan's header. */
    private async mask(): Promise<Uint8Array | null> {
        const { subject } = this;
        const drawn = await this.stage.paper?.drawing();
        if (!subject || !drawn) return null;
        return this.engine.correct({ scan: subject.scan, drawn, classes: this.classes.length });
    }

    private discard(): void {
        this.stage.paper?.stopDrawing();
        this.origin = null;
        this.panel.ended();
    }

    private async safely(act: () => Promise<void>): Promise<void> {
        try {
            clear("correct");
            await act();
        } catch (error) {
            warn("correct", sentence(error));
        }
    }
}
