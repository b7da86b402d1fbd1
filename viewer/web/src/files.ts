/** A user's own files: dropped or picked, read here, sent nowhere. */

import { byId, el } from "./dom";
import { sentence, warn } from "./notices";

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

export class FilePanel {
    private readonly adapter = el("p", { class: "own-adapter", hidden: true });
    private readonly truth = el("div", { hidden: true });

    /** `sites`: those that a scan may be of, if each has intensities of its own. */
    constructor(
        place: HTMLElement,
        sites: string[],
        private readonly takers: Takers,
    ) {
        const site = el("select", {}, ...sites.map((name) => el("option", { value: name }, name)));
        site.onchange = () => takers.onSite(site.value);
        this.truth.append(picker("Add labels to compare with", ".nii,.gz", "pick-truth", (file) => takers.onTruth(file)));
        if (sites.length) this.truth.append(el("label", { class: "site" }, "Intensities as of site ", site));
        place.replaceChildren(
            el("p", { class: "hint" }, "Nothing is uploaded. Drop files anywhere on the page, or pick them:"),
            picker("Open a scan (.nii, .nii.gz)", ".nii,.gz", "pick-scan", (file) => takers.onScan(file)),
            this.truth,
            picker("Use another adapter (.safetensors)", ".safetensors", "pick-adapter", (file) => takers.onAdapter(file)),
            this.adapter,
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
            for (const file of event.dataTransfer?.files ?? []) void this.take(file);
        });
    }

    private async take(file: File): Promise<void> {
        const own = await readFile(file);
        if (!own) return;
        if (/\.safetensors$/i.test(file.name)) this.takers.onAdapter(own);
        else this.takers.onScan(own);
    }
}

function picker(title: string, accept: string, id: string, take: (file: OwnFile) => void): HTMLElement {
    const input = el("input", { type: "file", accept, id, class: "hidden" });
    input.onchange = async () => {
        const file = input.files?.[0];
        const own = file && (await readFile(file));
        // The same file may be picked again.
        input.value = "";
        if (own) take(own);
    };
    return el("label", { class: "picker", for: id }, input, el("span", {}, title));
}

async function readFile(file: File): Promise<OwnFile | null> {
    try {
        return { name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) };
    } catch (error) {
        warn("file", `${file.name} cannot be read (${sentence(error)}); choose it again.`);
        return null;
    }
}
