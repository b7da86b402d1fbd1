/** Which case or scan is shown: chosen from the list, the sites or the address, or brought by the user. */

import * as address from "./address";
import type { Asking } from "./asking";
import type { Beside } from "./beside";
import { CaseList, keyOf } from "./cases";
import type { Correcting } from "./correcting";
import type { Current } from "./current";
import { byId } from "./dom";
import { FilePanel, type OwnFile } from "./files";
import type { KeptPanel } from "./kept";
import type { Legend } from "./layers";
import { clear, sentence, warn } from "./notices";
import type { Overlays } from "./overlays";
import type { Segmenting } from "./segmenting";
import { loaderOf, type Shown } from "./shown";
import type { Stage } from "./stage";
import { Strip } from "./strip";

/** The parts that hear of another case. */
interface Parts {
    stage: Stage;
    legend: Legend;
    overlays: Overlays;
    correcting: Correcting;
    segmenting: Segmenting;
    asking: Asking;
    beside: Beside;
    kept: KeptPanel;
}

export class Choosing {
    private fetching = new AbortController();
    private readonly cases = new CaseList(
        byId("cases"),
        (key) => this.go(key),
        (score) => this.strip.show(this.current.run, score),
    );
    private readonly strip = new Strip(byId("sites"), (key) => this.go(key));
    private readonly files: FilePanel;

    constructor(
        private readonly current: Current,
        private readonly parts: Parts,
    ) {
        const { run } = current;
        this.cases.show(run, []);
        this.strip.show(run, this.cases.score);
        byId("sites").hidden = run.cases.length === 0;
        this.files = new FilePanel(byId("files"), run.sites, {
            onScan: (file) => void this.openOwn(file),
            onAdapter: (file) => this.useAdapter(file),
            onTruth: (file) => void this.addTruth(file),
            onNoAdapter: () => this.useAdapter(null),
            onSite: (site) => (current.site = site),
        });
        this.files.setOwnScan(false);
        window.addEventListener("popstate", () => {
            const { view, case: key } = address.read();
            parts.stage.setView(view);
            if (key) void this.choose(key);
        });
    }

    /** Shows the case that the address names, or else the first one. */
    async start(): Promise<void> {
        const { run } = this.current;
        const named = address.read();
        if (named.run && named.run !== run.name) {
            warn("link", `This link is of the run ${named.run}; the page shows ${run.name}.`);
        }
        address.change({ run: run.name });
        const known = run.cases.some((one) => keyOf(one) === named.case);
        if (named.case && !known) warn("link", `The run has no case ${named.case}; choose one from the list.`);
        const first = document.querySelector<HTMLElement>("#cases [data-case]")?.dataset["case"];
        const key = known ? named.case : first;
        if (key) await this.choose(key);
    }

    /** To the case so many below the one that is shown, as they are listed. */
    step(by: number): void {
        this.cases.step(by);
    }

    /** To a case that was chosen from the list or the sites. */
    private go(key: string): void {
        void this.choose(key);
        // There the images are elsewhere on the page.
        if (matchMedia("(max-width: 720px)").matches) byId("stage").scrollIntoView();
    }

    private async choose(key: string): Promise<void> {
        const load = loaderOf(this.current, key);
        if (!load) return;
        this.parts.segmenting.cancel();
        this.fetching.abort();
        const { signal } = (this.fetching = new AbortController());
        await this.parts.correcting.leave();
        if (signal.aborted) return;
        this.empty(key);
        try {
            const shown = await load(signal);
            if (!signal.aborted) await this.show(shown);
        } catch (error) {
            if (signal.aborted) return;
            warn("case", sentence(error), [{ label: "Try again", act: () => void this.choose(key) }]);
        }
    }

    /** Takes the last case away, for one that is to come. */
    private empty(key: string): void {
        const { stage, legend, segmenting, asking } = this.parts;
        const own = this.current.own.has(key);
        this.cases.select(key);
        this.strip.select(key);
        address.change({ case: own ? null : key });
        this.current.shown = null;
        stage.clear();
        legend.setAside("native", false);
        ["run", "images"].forEach(clear);
        this.current.classes = this.current.run.classes;
        segmenting.setCase(false);
        asking.setCase(false);
        this.files.setOwnScan(own);
    }

    private async show(shown: Shown): Promise<void> {
        const { overlays, correcting, segmenting, asking, beside, kept } = this.parts;
        this.current.shown = shown;
        segmenting.setCase(true);
        asking.setCase(true);
        clear("case");
        await overlays.redraw();
        void kept.update();
        if (this.current.shown !== shown) return;
        void beside.refresh();
        const { key, scan, truth, native, outcome } = shown;
        await correcting.show({ key, scan, masks: { truth, native, browser: outcome?.mask ?? null } });
    }

    private async openOwn(file: OwnFile): Promise<void> {
        this.current.own.set(file.name, file);
        this.cases.show(this.current.run, [...this.current.own.keys()]);
        await this.choose(file.name);
    }

    private useAdapter(file: OwnFile | null): void {
        this.current.adapter = file;
        this.files.setAdapter(file?.name ?? null);
    }

    private async addTruth(file: OwnFile): Promise<void> {
        const { shown } = this.current;
        if (!shown?.own) return;
        const { overlays, correcting, segmenting, beside } = this.parts;
        await correcting.leave();
        shown.truth = file.bytes;
        await overlays.redraw();
        void beside.refresh();
        const { key, scan, native } = shown;
        await correcting.show({ key, scan, masks: { truth: file.bytes, native } });
        if (shown.outcome) await segmenting.present(shown, shown.outcome);
    }
}
