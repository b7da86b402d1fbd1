/** What buttons and keys of the images do beyond the images: the worst slice, a picture, surfaces, layers, the next case. */

import type { Choosing } from "./choosing";
import type { Current } from "./current";
import { byId, save } from "./dom";
import type { LayerName, Legend } from "./layers";
import { clear, sentence, warn } from "./notices";
import type { Overlays } from "./overlays";
import { picture } from "./picture";
import { computed, fileName } from "./shown";
import type { Stage } from "./stage";

const LAYER_KEYS: Record<string, LayerName> = { t: "truth", n: "native", b: "browser", d: "missed" };

export class Tools {
    constructor(
        private readonly current: Current,
        private readonly stage: Stage,
        private readonly overlays: Overlays,
        private readonly legend: Legend,
        private readonly choosing: Choosing,
    ) {
        stage.onKey = (key) => this.key(key);
        byId("worst-slice").onclick = () => void this.toWorstSlice();
        byId("picture").onclick = () => void this.takePicture();
        byId("meshes").onclick = () => void this.saveMeshes();
    }

    /** A key on the images; whether it means something. */
    private key(key: string): boolean {
        const layer = LAYER_KEYS[key.toLowerCase()];
        if (layer) this.legend.toggle(layer);
        else if (key === ",") this.choosing.step(-1);
        else if (key === ".") this.choosing.step(1);
        else if (key === "x") void this.toWorstSlice();
        else return false;
        return true;
    }

    /** To the axial slice where the mask and the truth differ most. */
    private async toWorstSlice(): Promise<void> {
        const { shown } = this.current;
        const mask = shown && (shown.native ?? computed(shown));
        try {
            clear("worst");
            if (!mask || !shown.truth) throw new Error("There is no mask and truth to compare; press Segment first.");
            const { worst } = await this.overlays.compare(mask, shown.truth);
            if (this.current.shown !== shown) return;
            if (!worst) throw new Error("The mask and the truth are equal everywhere.");
            this.stage.goTo(worst);
        } catch (error) {
            warn("worst", sentence(error));
        }
    }

    /** Offers the images as a picture, with a scale and a legend. */
    private async takePicture(): Promise<void> {
        clear("picture");
        const { shown, run } = this.current;
        const snapshot = this.stage.snapshot();
        try {
            if (!shown || !snapshot) throw new Error("There are no images to make a picture of.");
            const details = [`${run.title}, seed ${run.seed}`, ...this.stage.details];
            const blob = await picture(snapshot, { title: shown.title, details, shades: this.legend.shades() });
            save(new Uint8Array(await blob.arrayBuffer()), `${fileName(shown.title)}.png`, "image/png");
        } catch (error) {
            warn("picture", sentence(error));
        }
    }

    /** Offers the surfaces of the drawing, or of the first mask that there is. */
    private async saveMeshes(): Promise<void> {
        clear("meshes");
        try {
            const { shown, classes } = this.current;
            const { paper } = this.stage;
            const mask = (["drawing", "browser", "native", "truth"] as const).find((name) => paper?.labels(name));
            const map = mask && paper?.labels(mask);
            const { meshes } = await import("./mesh");
            const zip = map && meshes(map, classes);
            if (!shown || !zip) throw new Error("There is no mask with a class in it to make surfaces of.");
            save(zip, `${fileName(shown.title)}_${mask}_meshes.zip`, "application/zip");
        } catch (error) {
            warn("meshes", sentence(error));
        }
    }
}
