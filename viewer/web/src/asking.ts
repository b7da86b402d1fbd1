/** Asking SAM about slices of what is shown. */

import type { Slice } from "../wasm/flapsam_viewer";
import type { Correcting } from "./correcting";
import type { Current } from "./current";
import type { DevicePanel } from "./device";
import { byId } from "./dom";
import type { Engine } from "./engine";
import { clear, sentence, warn } from "./notices";
import { PromptPanel, type View } from "./prompts";
import { remedies } from "./remedies";
import { remote } from "./run";
import type { Shown } from "./shown";
import type { Stage } from "./stage";

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
            look: () => this.look(),
            ask: ({ slice, window }, prompt) => engine.question({ choice: device.choice, base, slice, window, prompt }),
            next: ({ slice }, by) => this.next(slice, by),
            keep: (view, inside, label, carried) =>
                correcting.keep(view.slice.number, inside, label, carried ? "carried" : "SAM"),
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

    /** The axial slice at the crosshair. */
    private async look(): Promise<View> {
        clear("prompts");
        const { shown } = this.current;
        const { place } = this.stage;
        if (!shown || !place) throw new Error("There is no slice to ask about: the images are not drawn.");
        return this.viewOf(await this.engine.look({ scan: shown.scan, at: place.mm }), shown);
    }

    /** The slice so many above; null beyond the last one. */
    private async next(slice: Slice, by: number): Promise<View | null> {
        const { shown } = this.current;
        const number = slice.number + by;
        if (!shown || number < 1 || number > slice.of) return null;
        return this.viewOf(await this.engine.look({ scan: shown.scan, at: number }), shown);
    }

    private viewOf(slice: Slice, shown: Shown): View {
        const title = `${shown.title}, axial slice ${slice.number} of ${slice.of}`;
        return { slice, window: this.stage.window, title };
    }
}
