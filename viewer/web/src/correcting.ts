/** What is drawn and kept of a scan: one drawing at a time, those of other cases are put aside until they are back. */

import { CorrectionPanel, ink, type Start } from "./corrections";
import { byId } from "./dom";
import type { Engine } from "./engine";
import { clear, sentence, warn } from "./notices";
import type { Promised } from "./protocol";
import type { Stage } from "./stage";

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
    private drawing = false;
    /** Drawings of cases that are not shown, by their names. */
    private readonly aside = new Map<string, Uint8Array>();
    private readonly panel = new CorrectionPanel(byId("correct-panel"), {
        onStart: (from) => void this.safely(() => this.start(this.subject?.masks[from] ?? null)),
        onPen: (pen) => {
            if (this.stage.paper) this.stage.paper.pen = pen;
        },
        onStep: (back) => this.stage.paper?.step(back),
        onSave: () => void this.safely(() => this.save()),
        onDiscard: () => this.discard(),
    });

    constructor(
        private readonly stage: Stage,
        private readonly engine: Engine,
        private readonly onSave: (mask: Uint8Array, key: string) => void,
    ) {
        window.addEventListener("beforeunload", (event) => {
            if (this.drawing || this.aside.size > 0) event.preventDefault();
        });
    }

    setClasses(classes: string[]): void {
        this.classes = classes;
        this.panel.setClasses(classes);
    }

    stroke(undoable: boolean, redoable: boolean): void {
        this.panel.stroke(undoable, redoable);
    }

    /** Puts the drawing aside before another case is shown. */
    async leave(): Promise<void> {
        const { subject } = this;
        const drawn = this.drawing && (await this.stage.paper?.drawing());
        if (subject && drawn) this.aside.set(subject.key, drawn);
        this.subject = null;
        this.drawing = false;
        this.panel.setCase(false);
    }

    /** A case is shown; its drawing is taken up again. */
    async show(subject: Subject): Promise<void> {
        this.subject = subject;
        this.panel.setCase(true);
        this.offer();
        const drawn = this.aside.get(subject.key);
        if (!drawn) return;
        await this.safely(async () => {
            await this.start(drawn);
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
    async keep(number: number, inside: Uint8Array, label: number): Promise<void> {
        const { subject } = this;
        if (!subject) return;
        const drawn = this.drawing ? ((await this.stage.paper?.drawing()) ?? null) : null;
        const { scan } = subject;
        const mask = await this.engine.keep({ scan, drawn, number, inside, label, classes: this.classes.length });
        if (this.subject === subject) await this.start(mask);
    }

    private async start(mask: Uint8Array | null): Promise<void> {
        const paper = this.stage.paper;
        if (!paper) throw new Error("The images are not drawn, so there is nothing to draw on.");
        const restated = mask && (await this.engine.restate(mask));
        await paper.draw(restated, this.classes.slice(1).map((_, index) => ink(index + 1)));
        if (!this.drawing) this.panel.drawing();
        this.drawing = true;
    }

    private async save(): Promise<void> {
        const { subject } = this;
        const drawn = await this.stage.paper?.drawing();
        if (!subject || !drawn) return;
        const mask = await this.engine.correct({ scan: subject.scan, drawn, classes: this.classes.length });
        this.onSave(mask, subject.key);
        this.panel.say("Saved with the scan's own grid and header.");
    }

    private discard(): void {
        this.stage.paper?.stopDrawing();
        this.drawing = false;
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
