/** The label maps over the scan: which there are, and how they differ. */

import type { Comparison } from "../wasm/flapsam_viewer";
import type { Current } from "./current";
import type { Engine } from "./engine";
import { LAYERS, type LayerName, type Legend } from "./layers";
import { sentence, warn } from "./notices";
import { computed, type Shown } from "./shown";
import type { Stage } from "./stage";

export class Overlays {
    constructor(
        private readonly current: Current,
        private readonly engine: Engine,
        private readonly stage: Stage,
        private readonly legend: Legend,
    ) {}

    /** Draws the scan and every layer anew. */
    async redraw(): Promise<void> {
        const { shown } = this.current;
        if (!shown) return;
        this.legend.setThere("truth", !!shown.truth);
        this.legend.setThere("native", !!shown.native);
        this.legend.setThere("browser", !!shown.outcome);
        this.legend.setThere("missed", !!shown.truth && !!(shown.native ?? shown.outcome));
        this.legend.setThere("moved", !!shown.native && !!shown.outcome);
        try {
            const scan = await this.engine.restate(shown.scan.bytes);
            if (this.current.shown !== shown) return;
            await this.stage.show(scan, shown.title, this.current.run.clip);
            for (const name of LAYERS) await this.draw(name);
        } catch (error) {
            if (this.current.shown !== shown) return;
            warn("images", `The images of ${shown.title} cannot be drawn: ${sentence(error)}`);
        }
    }

    async draw(name: LayerName): Promise<void> {
        const { shown } = this.current;
        if (!shown) return;
        const map = await this.layer(shown, name);
        const bytes = map && (await this.engine.restate(map));
        if (this.current.shown === shown) await this.stage.setLayer(name, bytes, this.legend.style(name));
    }

    /** Draws a layer as the legend says now. */
    async restyle(name: LayerName): Promise<void> {
        try {
            if ((name === "missed" || name === "moved") && this.legend.isOn(name)) await this.draw(name);
            this.stage.setStyle(name, this.legend.style(name));
        } catch (error) {
            warn("layer", sentence(error));
        }
    }

    compare(one: Uint8Array, other: Uint8Array): Promise<Comparison> {
        const { shown, run, classes } = this.current;
        const { resample, spacingMm } = shown?.outcome?.network ?? run;
        return this.engine.compare({ one, other, classes: classes.length, resample, spacingMm });
    }

    /** A layer's label map. Differences are computed when they are first looked at. */
    private async layer(shown: Shown, name: LayerName): Promise<Uint8Array | null> {
        switch (name) {
            case "truth":
                return shown.truth;
            case "native":
                return shown.native;
            case "browser":
                return shown.outcome?.mask ?? null;
            case "missed":
                return this.difference(name, shown.native ?? computed(shown), shown.truth);
            case "moved":
                return this.difference(name, computed(shown), shown.native);
        }
    }

    private async difference(name: LayerName, one: Uint8Array | null, other: Uint8Array | null) {
        if (!this.legend.isOn(name) || !one || !other) return null;
        return (await this.compare(one, other)).difference;
    }
}
