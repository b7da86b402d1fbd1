/** Asking SAM about slices of what is shown. */

import type { Plane, Slice } from "../wasm/flapsam_viewer";
import type { View } from "./address";
import type { Correcting } from "./correcting";
import type { Current } from "./current";
import type { DevicePanel } from "./device";
import { byId } from "./dom";
import type { Engine } from "./engine";
import { clear, sentence, warn } from "./notices";
import { type Looked, PromptPanel } from "./prompts";
import { remedies } from "./remedies";
import { remote } from "./run";
import type { Shown } from "./shown";
import type { Stage } from "./stage";

/** The plane that is asked about in a view: of several, the one that the slider goes through. */
const SHOWN: Record<View, Plane> = {
    planes: "axial",
    axial: "axial",
    coronal: "coronal",
    sagittal: "sagittal",
    "3d": "axial",
};

export class Asking {
    private readonly panel: PromptPanel;

    constructor(
        private readonly current: Current,
        private readonly engine: Engine,
        private readonly stage: Stage,
        device: DevicePanel,
        correcting: Correcting,
    ) {
        const base = remote(current.run.base);
        this.panel = new PromptPanel(byId("prompts"), {
            look: (plane) => this.look(plane),
            ask: ({ slice, window }, prompt, onProgress) =>
                engine.question({ choice: device.choice, base, slice, window, prompt }, onProgress),
            encode: ({ slice, window }) => engine.encode({ choice: device.choice, base, slice, window }),
            next: ({ slice }, by) => this.next(slice, by),
            keep: (view, inside, label, carried) =>
                correcting.keep(view.slice, inside, label, carried ? "carried" : "SAM"),
            onLeave: () => engine.abandon(),
            onFailure: (error) => warn("prompts", sentence(error), remedies(error, () => byId("ask").click())),
        });
    }

    /** Whether there is a scan to ask about. */
    setCase(there: boolean): void {
        this.panel.setCase(there);
    }

    setClasses(classes: string[]): void {
        this.panel.setClasses(classes);
    }

    /** The slice at the crosshair, of the plane that is chosen, or of the one that is shown. */
    private async look(chosen: Plane | null): Promise<Looked> {
        clear("prompts");
        const { shown } = this.current;
        const { place } = this.stage;
        if (!shown || !place) throw new Error("There is no slice to ask about: the images are not drawn.");
        const plane = chosen ?? SHOWN[this.stage.shownView];
        return this.viewOf(await this.engine.look({ scan: shown.scan, plane, at: place.mm }), shown);
    }

    /** The slice so many above; null beyond the last one. */
    private async next(slice: Slice, by: number): Promise<Looked | null> {
        const { shown } = this.current;
        const number = slice.number + by;
        if (!shown || number < 1 || number > slice.of) return null;
        return this.viewOf(await this.engine.look({ scan: shown.scan, plane: slice.plane, at: number }), shown);
    }

    private viewOf(slice: Slice, shown: Shown): Looked {
        const title = `${shown.title}, ${slice.plane} slice ${slice.number} of ${slice.of}`;
        return { slice, window: this.stage.window, title };
    }
}
