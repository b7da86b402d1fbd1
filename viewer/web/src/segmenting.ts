/** Segmenting what is shown: the engine's work, its panel, and what came of it beside truth and native mask. */

import type { Comparison } from "../wasm/flapsam_viewer";
import type { Beside } from "./beside";
import type { Correcting } from "./correcting";
import type { Current } from "./current";
import type { DevicePanel } from "./device";
import { byId, save } from "./dom";
import type { Engine } from "./engine";
import type { KeptPanel } from "./kept";
import type { Legend } from "./layers";
import { clear, sentence, warn } from "./notices";
import type { Overlays } from "./overlays";
import type { Outcome } from "./protocol";
import { remedies } from "./remedies";
import { adapterOf, remote } from "./run";
import { RunPanel } from "./runhere";
import { fileName, type Shown } from "./shown";

export class Segmenting {
    private readonly panel = new RunPanel(byId("run-here"), {
        onRun: () => void this.segment(),
        onCancel: () => this.cancel(),
        onSave: () => this.save(),
    });

    constructor(
        private readonly current: Current,
        private readonly engine: Engine,
        private readonly device: DevicePanel,
        private readonly overlays: Overlays,
        private readonly legend: Legend,
        private readonly correcting: Correcting,
        private readonly beside: Beside,
        private readonly kept: KeptPanel,
    ) {
        document.addEventListener("keydown", (event) => {
            if (event.key === "Escape") this.cancel();
        });
    }

    /** Whether there is a scan to segment. */
    setCase(there: boolean): void {
        this.panel.setCase(there);
    }

    cancel(): void {
        if (byId("cancel").hidden) return;
        this.panel.cancelling();
        this.engine.cancel();
    }

    /** Shows a finished segmentation beside the truth and the native one. */
    async present(shown: Shown, outcome: Outcome): Promise<void> {
        const own = this.current.adapter !== null;
        // A user's own adapter may have classes of its own.
        if (own) this.current.classes = outcome.network.classes;
        const mask = outcome.gridMask ?? outcome.mask;
        const truth = shown.truth && (await this.compareIfPossible(mask, shown.truth));
        const native = shown.native && !own ? await this.compareIfPossible(mask, shown.native) : null;
        this.panel.show({ outcome, truth, native, recorded: shown.recorded });
        this.legend.setThere("browser", true);
        this.legend.setThere("missed", !!truth);
        this.legend.setThere("moved", !!native);
        // It mostly covers the native one; two layers are easier to tell apart than three.
        if (native) this.legend.setAside("native", true);
        for (const name of ["native", "browser", "missed", "moved"] as const) await this.overlays.draw(name);
        this.correcting.offer({ browser: outcome.mask });
        void this.beside.refresh();
    }

    private async segment(): Promise<void> {
        const { shown, run } = this.current;
        if (!shown) return;
        ["run", "device"].forEach(clear);
        this.panel.running();
        try {
            const by = this.by(shown);
            const outcome = await this.engine.run(
                { ...by, choice: this.device.choice, base: remote(run.base), scan: shown.scan },
                (progress) => this.panel.progress(progress),
                (received, of) => this.panel.fetching(received, of),
            );
            void this.kept.update();
            if (!outcome) return this.panel.ended("Cancelled.");
            shown.outcome = outcome;
            shown.adapterSha256 = "sha256" in by.adapter ? by.adapter.sha256 : await sha256(by.adapter.bytes);
            if (this.current.shown === shown) await this.present(shown, outcome);
            else this.panel.ended("");
        } catch (error) {
            this.panel.ended("It did not finish.");
            warn("run", sentence(error), remedies(error, () => void this.segment()));
        }
    }

    /** By which adapter a scan is segmented, and as a scan of which site. */
    private by(shown: Shown) {
        const { run, adapter } = this.current;
        const site = shown.own ? this.current.site : shown.site;
        return { adapter: adapter ? { bytes: adapter.bytes } : remote(adapterOf(run, site)), site };
    }

    /** A segmentation is worth showing even if what it is compared with does not fit. */
    private async compareIfPossible(one: Uint8Array, other: Uint8Array): Promise<Comparison | null> {
        try {
            clear("comparison");
            return await this.overlays.compare(one, other);
        } catch (error) {
            warn("comparison", sentence(error));
            return null;
        }
    }

    private save(): void {
        const { shown } = this.current;
        if (!shown?.outcome) return;
        save(shown.outcome.mask, `${fileName(shown.title)}_mask.nii.gz`, "application/gzip");
    }
}

/** Null at an insecure address, where browsers compute none. */
async function sha256(bytes: Uint8Array): Promise<string | null> {
    if (!crypto.subtle) return null;
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
    return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
