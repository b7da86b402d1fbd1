/** A user's own files: dropped or picked, read here, sent nowhere. */

import { byId, el } from "./dom";
import { dropped } from "./gathered";
import { clear, sentence, warn } from "./notices";
import { read, scansAmong } from "./scans";

export interface OwnFile {
    name: string;
    bytes: Uint8Array;
}

export interface Takers {
    onScan: (file: OwnFile) => void;
    onAdapter: (file: OwnFile) => void;
    onTruth: (file: OwnFile) => void;
    /** Back to the run's adapter. */
    onNoAdapter: () => void;
    onSite: (site: string) => void;
}

const ADAPTER = /\.safetensors$/i;

export class FilePanel {
    private readonly adapter = el("p", { class: "own-adapter", hidden: true });
    private readonly truth = el("div", { hidden: true });
    private readonly series = el("dialog", { id: "series", "aria-labelledby": "series-title" });
    private readonly status = el("p", { class: "hint", role: "status" });

    /** `sites`: those that a scan may be of, if each has intensities of its own. */
    constructor(
        place: HTMLElement,
        sites: string[],
        private readonly takers: Takers,
    ) {
        const site = el("select", {}, ...sites.map((name) => el("option", { value: name }, name)));
        site.onchange = () => takers.onSite(site.value);
        const take = (files: File[]) => void this.take(files);
        const label = (files: File[]) => void this.read(files, takers.onTruth);
        this.truth.append(picker("Add labels to compare with", { id: "pick-truth", multiple: true }, label));
        if (sites.length) this.truth.append(el("label", { class: "site" }, "Intensities as of site ", site));
        place.replaceChildren(
            el("p", { class: "hint" }, "Nothing is uploaded. Drop files or folders anywhere on the page, or pick them:"),
            picker("Open a scan (NIfTI, NRRD, MHA, DICOM)", { id: "pick-scan", multiple: true }, take),
            picker("Open a folder (DICOM)", { id: "pick-folder", webkitdirectory: true }, take),
            this.truth,
            picker("Use another adapter (.safetensors)", { id: "pick-adapter", accept: ".safetensors" }, take),
            this.adapter,
            this.status,
            this.series,
        );
        this.acceptDrops();
    }

    /** Says which adapter of the user's is in use; none with null. */
    setAdapter(name: string | null): void {
        const back = el("button", { type: "button", onclick: () => this.takers.onNoAdapter() }, "Use the run's");
        this.adapter.replaceChildren(...(name ? [`Adapter: ${name} `, back] : []));
        this.adapter.hidden = !name;
    }

    /** Labels and a site are asked for with a scan of the user's own. */
    setOwnScan(own: boolean): void {
        this.truth.hidden = !own;
    }

    private acceptDrops(): void {
        const cover = byId("drop");
        const holdsFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
        // In the capturing phase: NiiVue's canvas keeps its drops to itself.
        const listen = (name: "dragover" | "dragleave" | "drop", act: (event: DragEvent) => void) =>
            window.addEventListener(
                name,
                (event) => {
                    if (!holdsFiles(event)) return;
                    event.preventDefault();
                    event.stopPropagation();
                    act(event);
                },
                { capture: true },
            );
        listen("dragover", () => (cover.hidden = false));
        listen("dragleave", (event) => (cover.hidden = event.relatedTarget === null));
        listen("drop", (event) => {
            cover.hidden = true;
            if (event.dataTransfer) void this.safely(async () => this.take(await dropped(event.dataTransfer as DataTransfer)));
        });
    }

    /** Adapters by their ending; all else are scans. */
    private async take(files: File[]): Promise<void> {
        const adapters = files.filter(({ name }) => ADAPTER.test(name));
        const scans = files.filter(({ name }) => !ADAPTER.test(name));
        await this.safely(async () => {
            for (const file of adapters) this.takers.onAdapter(await read(file));
        });
        await this.read(scans, this.takers.onScan);
    }

    /** Reads scans of any format; of several series the user chooses one. */
    private async read(files: File[], take: (scan: OwnFile) => void): Promise<void> {
        if (files.length === 0) return;
        await this.safely(async () => {
            this.status.textContent = files.length > 1 ? `Reading ${files.length} files…` : "Reading…";
            const { scans, series } = await scansAmong(files);
            scans.forEach(take);
            const [only] = series;
            if (only && series.length === 1) take(only);
            else if (only) this.choose(series, take);
        });
        this.status.textContent = "";
    }

    private choose(series: OwnFile[], take: (scan: OwnFile) => void): void {
        const { series: dialog } = this;
        const choices = series.map((one) => {
            const onclick = () => {
                dialog.close();
                take(one);
            };
            return el("button", { type: "button", onclick }, one.name.replace(/\.nii$/, "").replaceAll("_", " "));
        });
        const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
        const title = el("h2", { id: "series-title" }, `Which of the ${series.length} series?`);
        dialog.replaceChildren(el("div", { class: "row" }, title, close), el("div", { class: "choices" }, ...choices));
        dialog.showModal();
    }

    private async safely(act: () => Promise<void>): Promise<void> {
        try {
            clear("file");
            await act();
        } catch (error) {
            warn("file", sentence(error));
        }
    }
}

function picker(
    title: string,
    attributes: { id: string; accept?: string; multiple?: boolean; webkitdirectory?: boolean },
    take: (files: File[]) => void,
): HTMLElement {
    const input = el("input", { type: "file", class: "hidden", ...attributes });
    input.onchange = () => {
        const files = [...(input.files ?? [])];
        // The same file may be picked again.
        input.value = "";
        if (files.length) take(files);
    };
    return el("label", { class: "picker", for: attributes.id }, input, el("span", {}, title));
}
