/** Puts the page together: the run, the chosen case, its images, and what is segmented here. */

import type { Comparison, Slice } from "../wasm/flapsam_viewer";
import * as address from "./address";
import { CaseList, keyOf } from "./cases";
import { Correcting } from "./correcting";
import { DevicePanel } from "./device";
import { byId, el, save } from "./dom";
import { Engine, EngineError } from "./engine";
import { FilePanel, type OwnFile } from "./files";
import { LAYERS, Legend, type LayerName } from "./layers";
import { clear, sentence, warn, type Action } from "./notices";
import type { Choice, Outcome, Promised } from "./protocol";
import { adapterOf, fetchBytes, fetchRun, type Case, type LinkedFile, type Run } from "./run";
import { picture } from "./picture";
import { PromptPanel, type View } from "./prompts";
import { RunPanel, type Recorded } from "./runhere";
import { Stage } from "./stage";
import { Strip } from "./strip";
import type { Remote } from "./weights";

/** What is shown and can be segmented. */
interface Shown {
    key: string;
    title: string;
    scan: Promised;
    site: string | undefined;
    truth: Uint8Array | null;
    native: Uint8Array | null;
    recorded: Recorded | null;
    own: boolean;
    outcome: Outcome | null;
}

class Page {
    private shown: Shown | null = null;
    private state = address.read();
    private readonly own = new Map<string, OwnFile>();
    private adapter: OwnFile | null = null;
    private classes: string[] = [];
    private ownSite: string | undefined;
    private fetching = new AbortController();

    private readonly engine = new Engine((report) => this.device.show(report));
    private readonly cases = new CaseList(
        byId("cases"),
        (key) => this.go(key),
        (score) => this.strip.show(this.run, score),
    );
    private readonly strip = new Strip(byId("sites"), (key) => this.go(key));
    private readonly legend = new Legend(byId("layers"), (name) => void this.restyle(name));
    private readonly stage = new Stage(
        (view) => this.remember({ view }),
        (undoable, redoable) => this.correcting.stroke(undoable, redoable),
    );
    private readonly correcting = new Correcting(this.stage, this.engine, (mask, key) =>
        save(mask, `${fileName(key.replace("/", "_"))}_corrected.nii.gz`, "application/gzip"),
    );
    private readonly files: FilePanel;
    private readonly runPanel = new RunPanel(byId("run-here"), {
        onRun: () => void this.segment(),
        onCancel: () => this.cancel(),
        onSave: () => this.saveMask(),
    });
    private readonly prompts = new PromptPanel(byId("prompts"), {
        look: () => this.look(),
        ask: ({ slice, window }, prompt) =>
            this.engine.question({ choice: this.device.choice, base: remote(this.run.base), slice, window, prompt }),
        next: async ({ slice }, by) => {
            const { shown } = this;
            const number = slice.number + by;
            if (!shown || number < 1 || number > slice.of) return null;
            return this.viewOf(await this.engine.look({ scan: shown.scan, at: number }), shown);
        },
        keep: (view, inside, label) => this.correcting.keep(view.slice.number, inside, label),
        onLeave: () => this.engine.abandon(),
        onFailure: (error) => warn("prompts", sentence(error), this.remedies(error, () => byId("ask").click())),
    });
    private readonly device = new DevicePanel(
        byId("device"),
        () => ({ run: this.run.name, case: this.shown?.title ?? null, last: this.summary() }),
        (choice) => void this.openDevice(choice),
    );

    constructor(private readonly run: Run) {
        byId("run-title").textContent = `${run.title} · seed ${run.seed}`;
        byId("run-title").title = run.dataDescription;
        document.title = `${run.name} · flapsam viewer`;
        this.name(run.classes);
        this.cases.show(run, []);
        this.strip.show(run, this.cases.score);
        byId("sites").hidden = run.cases.length === 0;
        this.stage.onKey = (key) => this.key(key);
        byId("worst-slice").onclick = () => void this.toWorstSlice();
        byId("picture").onclick = () => void this.takePicture();
        this.ownSite = run.sites[0];
        this.files = new FilePanel(byId("files"), run.sites, {
            onScan: (file) => void this.openOwn(file),
            onAdapter: (file) => this.useAdapter(file),
            onTruth: (file) => void this.addTruth(file),
            onNoAdapter: () => this.useAdapter(null),
            onSite: (site) => (this.ownSite = site),
        });
        this.files.setOwnScan(false);
        window.addEventListener("popstate", () => {
            this.state = address.read();
            this.stage.setView(this.state.view);
            if (this.state.case) void this.choose(this.state.case);
        });
        document.addEventListener("keydown", (event) => {
            if (event.key === "Escape") this.cancel();
        });
    }

    async start(): Promise<void> {
        const { run, state } = this;
        if (state.run && state.run !== run.name) {
            warn("link", `This link is of the run ${state.run}; the page shows ${run.name}.`);
        }
        await this.stage.open(state.view, () => this.redraw());
        void this.openDevice("auto");
        const known = run.cases.some((one) => keyOf(one) === state.case);
        if (state.case && !known) warn("link", `The run has no case ${state.case}; choose one from the list.`);
        const first = document.querySelector<HTMLElement>("#cases [data-case]")?.dataset["case"];
        const key = known ? state.case : first;
        if (key) await this.choose(key);
    }

    /** A key on the images; whether it means something. */
    private key(key: string): boolean {
        const layers: Record<string, LayerName> = { t: "truth", n: "native", b: "browser", d: "missed" };
        const layer = layers[key.toLowerCase()];
        if (layer) this.legend.toggle(layer);
        else if (key === ",") this.cases.step(-1);
        else if (key === ".") this.cases.step(1);
        else if (key === "x") void this.toWorstSlice();
        else return false;
        return true;
    }

    /** To the axial slice where the mask and the truth differ most. */
    private async toWorstSlice(): Promise<void> {
        const { shown } = this;
        const mask = shown && (shown.native ?? shown.outcome?.gridMask ?? shown.outcome?.mask);
        try {
            clear("worst");
            if (!mask || !shown.truth) throw new Error("There is no mask and truth to compare; press Segment first.");
            const { worst } = await this.compare(mask, shown.truth);
            if (this.shown !== shown) return;
            if (!worst) throw new Error("The mask and the truth are equal everywhere.");
            this.stage.goTo(worst);
        } catch (error) {
            warn("worst", sentence(error));
        }
    }

    /** To a case that was chosen from the list or the sites. */
    private go(key: string): void {
        void this.choose(key);
        // There the images are elsewhere on the page.
        if (matchMedia("(max-width: 720px)").matches) byId("stage").scrollIntoView();
    }

    /** Shows a case of the run, or a scan of the user's. */
    private async choose(key: string): Promise<void> {
        const of = this.run.cases.find((one) => keyOf(one) === key);
        const own = this.own.get(key);
        if (!of && !own) return;
        this.cancel();
        this.fetching.abort();
        const { signal } = (this.fetching = new AbortController());
        await this.correcting.leave();
        if (signal.aborted) return;
        this.cases.select(key);
        this.strip.select(key);
        this.remember({ case: of ? key : null });
        this.shown = null;
        this.stage.clear();
        this.legend.setAside("native", false);
        ["run", "images"].forEach(clear);
        this.name(this.run.classes);
        this.runPanel.setCase(false);
        this.prompts.setCase(false);
        this.files.setOwnScan(!!own);
        try {
            const shown = own ? ownCase(key, own) : await caseOf(this.run, of as Case, signal);
            if (signal.aborted) return;
            this.shown = shown;
            this.runPanel.setCase(true);
            this.prompts.setCase(true);
            clear("case");
            await this.redraw();
            if (this.shown !== shown) return;
            const { scan, truth, native } = shown;
            await this.correcting.show({ key, scan, masks: { truth, native, browser: shown.outcome?.mask ?? null } });
        } catch (error) {
            if (signal.aborted) return;
            warn("case", sentence(error), [{ label: "Try again", act: () => void this.choose(key) }]);
        }
    }

    /** Draws the scan and every layer anew. */
    private async redraw(): Promise<void> {
        const { shown } = this;
        if (!shown) return;
        this.legend.setThere("truth", !!shown.truth);
        this.legend.setThere("native", !!shown.native);
        this.legend.setThere("browser", !!shown.outcome);
        this.legend.setThere("missed", !!shown.truth && !!(shown.native ?? shown.outcome));
        this.legend.setThere("moved", !!shown.native && !!shown.outcome);
        try {
            const scan = await this.engine.restate(shown.scan.bytes);
            if (this.shown !== shown) return;
            await this.stage.show(scan, shown.title, this.run.clip);
            for (const name of LAYERS) await this.draw(name);
        } catch (error) {
            if (this.shown !== shown) return;
            warn("images", `The images of ${shown.title} cannot be drawn: ${sentence(error)}`);
        }
    }

    private async draw(name: LayerName): Promise<void> {
        const { shown } = this;
        if (!shown) return;
        const map = await this.layer(shown, name);
        const bytes = map && (await this.engine.restate(map));
        if (this.shown === shown) await this.stage.setLayer(name, bytes, this.legend.style(name));
    }

    /** A layer's label map. Differences are computed when they are first looked at. */
    private async layer(shown: Shown, name: LayerName): Promise<Uint8Array | null> {
        const browser = shown.outcome && (shown.outcome.gridMask ?? shown.outcome.mask);
        switch (name) {
            case "truth":
                return shown.truth;
            case "native":
                return shown.native;
            case "browser":
                return shown.outcome?.mask ?? null;
            case "missed":
                return this.difference(name, shown.native ?? browser, shown.truth);
            case "moved":
                return this.difference(name, browser, shown.native);
        }
    }

    private async difference(name: LayerName, one: Uint8Array | null, other: Uint8Array | null) {
        if (!this.legend.isOn(name) || !one || !other) return null;
        return (await this.compare(one, other)).difference;
    }

    private compare(one: Uint8Array, other: Uint8Array) {
        const { resample, spacingMm } = this.shown?.outcome?.network ?? this.run;
        return this.engine.compare({ one, other, classes: this.classes.length, resample, spacingMm });
    }

    /** A segmentation is worth showing even if what it is compared with does not fit. */
    private async compareIfPossible(one: Uint8Array, other: Uint8Array): Promise<Comparison | null> {
        try {
            clear("comparison");
            return await this.compare(one, other);
        } catch (error) {
            warn("comparison", sentence(error));
            return null;
        }
    }

    private async restyle(name: LayerName): Promise<void> {
        try {
            if ((name === "missed" || name === "moved") && this.legend.isOn(name)) await this.draw(name);
            this.stage.setStyle(name, this.legend.style(name));
        } catch (error) {
            warn("layer", sentence(error));
        }
    }

    /** The axial slice at the crosshair, for prompts. */
    private async look(): Promise<View> {
        clear("prompts");
        const { shown } = this;
        const { place } = this.stage;
        if (!shown || !place) throw new Error("There is no slice to ask about: the images are not drawn.");
        return this.viewOf(await this.engine.look({ scan: shown.scan, at: place.mm }), shown);
    }

    private viewOf(slice: Slice, shown: Shown): View {
        const title = `${shown.title}, axial slice ${slice.number} of ${slice.of}`;
        return { slice, window: this.stage.window, title };
    }

    private async openDevice(choice: Choice): Promise<void> {
        try {
            await this.engine.open(choice);
            clear("device");
        } catch (error) {
            warn("device", sentence(error), this.remedies(error));
        }
    }

    private async segment(): Promise<void> {
        const { shown } = this;
        if (!shown) return;
        ["run", "device"].forEach(clear);
        this.runPanel.running();
        try {
            const site = shown.own ? this.ownSite : shown.site;
            const job = {
                choice: this.device.choice,
                base: remote(this.run.base),
                adapter: this.adapter ? { bytes: this.adapter.bytes } : remote(adapterOf(this.run, site)),
                scan: shown.scan,
                site,
            };
            const outcome = await this.engine.run(
                job,
                (progress) => this.runPanel.progress(progress),
                (received, of) => this.runPanel.fetching(received, of),
            );
            if (!outcome) return this.runPanel.ended("Cancelled.");
            shown.outcome = outcome;
            if (this.shown === shown) await this.present(shown, outcome);
            else this.runPanel.ended("");
        } catch (error) {
            this.runPanel.ended("It did not finish.");
            warn("run", sentence(error), this.remedies(error));
        }
    }

    /** Shows a finished segmentation beside the truth and the native one. */
    private async present(shown: Shown, outcome: Outcome): Promise<void> {
        // A user's own adapter may have classes of its own.
        if (this.adapter) this.name(outcome.network.classes);
        const mask = outcome.gridMask ?? outcome.mask;
        const truth = shown.truth && (await this.compareIfPossible(mask, shown.truth));
        const native = shown.native && !this.adapter ? await this.compareIfPossible(mask, shown.native) : null;
        this.runPanel.show({ outcome, truth, native, recorded: shown.recorded });
        this.legend.setThere("browser", true);
        this.legend.setThere("missed", !!truth);
        this.legend.setThere("moved", !!native);
        // It mostly covers the native one; two layers are easier to tell apart than three.
        if (native) this.legend.setAside("native", true);
        for (const name of ["native", "browser", "missed", "moved"] as const) await this.draw(name);
        this.correcting.offer({ browser: outcome.mask });
    }

    /** Tells everyone the names of the labels, background first. */
    private name(classes: string[]): void {
        this.classes = classes;
        this.legend.setClasses(classes);
        this.stage.classes = classes;
        this.correcting.setClasses(classes);
        this.prompts.setClasses(classes);
    }

    private cancel(): void {
        if (byId("cancel").hidden) return;
        this.runPanel.cancelling();
        this.engine.cancel();
    }

    /** What the user can do about a failure. */
    private remedies(error: unknown, retry: () => void = () => void this.segment()): Action[] {
        const kind = error instanceof EngineError ? error.kind : "";
        const again = { label: "Try again", act: retry };
        const onCpu = {
            label: "Use the CPU",
            act: () => byId("device").querySelector<HTMLInputElement>("[value=cpu]")?.click(),
        };
        switch (kind) {
            case "device":
            case "limit":
                return [onCpu];
            case "crash":
                return [again, onCpu];
            case "checksum":
            case "fetch":
                return [again];
            default:
                return [];
        }
    }

    private saveMask(): void {
        const { shown } = this;
        if (!shown?.outcome) return;
        save(shown.outcome.mask, `${fileName(shown.title)}_mask.nii.gz`, "application/gzip");
    }

    /** Offers the images as a picture, with a scale and a legend. */
    private async takePicture(): Promise<void> {
        clear("picture");
        const { shown } = this;
        const snapshot = this.stage.snapshot();
        try {
            if (!shown || !snapshot) throw new Error("There are no images to make a picture of.");
            const details = [`${this.run.title}, seed ${this.run.seed}`, ...this.stage.details];
            const blob = await picture(snapshot, { title: shown.title, details, shades: this.legend.shades() });
            save(new Uint8Array(await blob.arrayBuffer()), `${fileName(shown.title)}.png`, "image/png");
        } catch (error) {
            warn("picture", sentence(error));
        }
    }

    private async openOwn(file: OwnFile): Promise<void> {
        this.own.set(file.name, file);
        this.cases.show(this.run, [...this.own.keys()]);
        await this.choose(file.name);
    }

    private useAdapter(file: OwnFile | null): void {
        this.adapter = file;
        this.files.setAdapter(file?.name ?? null);
    }

    private async addTruth(file: OwnFile): Promise<void> {
        const { shown } = this;
        if (!shown?.own) return;
        await this.correcting.leave();
        shown.truth = file.bytes;
        await this.redraw();
        const { key, scan, native } = shown;
        await this.correcting.show({ key, scan, masks: { truth: file.bytes, native } });
        if (shown.outcome) await this.present(shown, shown.outcome);
    }

    private remember(change: Partial<address.State>): void {
        this.state = { ...this.state, run: this.run.name, ...change };
        address.write(this.state);
    }

    private summary(): object | null {
        const outcome = this.shown?.outcome;
        if (!outcome) return null;
        const { slices, milliseconds, classes, network } = outcome;
        return { slices, milliseconds, classes, network, backend: outcome.device.backend };
    }
}

/** What files about a scan are called. */
function fileName(title: string): string {
    return title.replace(/\.nii(\.gz)?$/i, "").replaceAll(/[^\w.-]+/g, "_");
}

/** A file of the run, for the worker, whose own address is another. */
function remote({ path, sha256, bytes }: LinkedFile): Remote {
    return { url: new URL(path, document.baseURI).href, sha256, bytes };
}

function ownCase(key: string, file: OwnFile): Shown {
    const scan = { bytes: file.bytes };
    const none = { truth: null, native: null, recorded: null, outcome: null };
    return { key, title: file.name, scan, site: undefined, own: true, ...none };
}

async function caseOf(run: Run, of: Case, signal: AbortSignal): Promise<Shown> {
    const [scan, truth, native] = await Promise.all([
        fetchBytes(of.image.path, signal),
        fetchBytes(of.truth.path, signal),
        of.prediction && fetchBytes(of.prediction.path, signal),
    ]);
    return {
        key: keyOf(of),
        title: `${run.name}_${of.site}_${of.id}`,
        scan: { bytes: scan, sha256: of.image.sha256 },
        site: of.site,
        truth,
        native,
        // Clients alone are judged by all of their models; computed here is the site's own.
        recorded: { of: run.setting === "alone" ? "mean of the clients' models" : "native", dice: of.dice },
        own: false,
        outcome: null,
    };
}

try {
    await new Page(await fetchRun()).start();
} catch (error) {
    byId("run-title").textContent = "No run";
    warn("page", `The page cannot start: ${sentence(error)}`, [{ label: "Reload", act: () => location.reload() }]);
    byId("cases").replaceChildren(el("h2", {}, "Cases"), el("p", {}, "None."));
}
