/** The images with their controls: view, window, slice, and what lies under the pointer. */

import { VIEWS, type View } from "./address";
import { amountsTable } from "./amounts";
import { byId, el } from "./dom";
import type { LayerName, Style } from "./layers";
import { clear, sentence, warn } from "./notices";
import { CT_WINDOWS } from "./presets";
import { Scene, type Listeners, type Place, type Snapshot } from "./scene";

const TITLES: Record<View, string> = {
    planes: "Planes",
    axial: "Axial",
    coronal: "Coronal",
    sagittal: "Sagittal",
    "3d": "3D",
};

/** The axis that the slice's slider goes along. */
const AXES: Record<View, 0 | 1 | 2> = { planes: 2, axial: 2, coronal: 1, sagittal: 0, "3d": 2 };
const AXIS_NAMES = ["Sagittal", "Coronal", "Axial"] as const;
const LAYER_NAMES: Partial<Record<LayerName, string>> = { truth: "truth", native: "native", browser: "browser" };
const MASKS: [LayerName | "drawing", string][] = [
    ["truth", "Truth"],
    ["native", "Native"],
    ["browser", "Browser"],
    ["drawing", "Yours"],
];

export class Stage {
    private scene: Scene | null = null;
    private view: View = "planes";
    private readonly slider = byId<HTMLInputElement>("slice");
    private readonly low = byId<HTMLInputElement>("window-low");
    private readonly high = byId<HTMLInputElement>("window-high");
    private readonly preset = byId<HTMLSelectElement>("preset");
    private readonly smooth = byId<HTMLInputElement>("smooth");
    private readonly onStroke: Listeners["onStroke"];
    private readonly measure = byId<HTMLInputElement>("measure");

    /** `onView` hears of another view, `onStroke` of what was drawn. */
    constructor(
        private readonly onView: (view: View) => void,
        onStroke: Listeners["onStroke"],
    ) {
        this.onStroke = (...stroke) => {
            onStroke(...stroke);
            this.tellAmounts();
        };
        const radios = VIEWS.map((view) => {
            const radio = el("input", { type: "radio", name: "view", value: view });
            radio.onchange = () => this.choose(view);
            const title = view === "planes" ? "Three planes and 3D" : "";
            return el("label", { title }, radio, el("span", {}, TITLES[view]));
        });
        byId("views").append(...radios);
        this.slider.oninput = () => this.toSlice(this.slider.valueAsNumber - 1);
        const form = byId<HTMLFormElement>("window");
        form.onsubmit = (event) => event.preventDefault();
        form.onchange = () => {
            if (this.scene) this.scene.window = [this.low.valueAsNumber, this.high.valueAsNumber];
        };
        form.onreset = (event) => {
            event.preventDefault();
            this.scene?.resetWindow();
        };
        this.preset.onchange = () => this.usePreset();
        this.smooth.onchange = () => this.apply();
        this.measure.onchange = () => this.apply();
    }

    /** The crosshair moved, mm. */
    onMoved: (mm: Place["mm"]) => void = () => {};

    /** The view or the window is another one. */
    onLook: () => void = () => {};

    /** A key that is not the images' own; whether it means something. */
    onKey: (key: string) => boolean = () => false;

    private key(key: string): boolean {
        switch (key.toLowerCase()) {
            case "s":
                this.smooth.click();
                return true;
            case "m":
                this.measure.click();
                return true;
            case "w": {
                // Past the last one, back to the scan's own window.
                const { options, selectedIndex } = this.preset;
                this.preset.selectedIndex = (selectedIndex + 1) % options.length;
                if (this.preset.value) this.usePreset();
                else this.scene?.resetWindow();
                return true;
            }
            default:
                return false;
        }
    }

    goTo(mm: [number, number, number]): void {
        this.scene?.goTo(mm);
    }

    /** What the switches say, also to images that are drawn anew. */
    private apply(): void {
        if (!this.scene) return;
        this.scene.smooth = this.smooth.checked;
        this.scene.measuring = this.measure.checked;
    }

    /** The windows that suit the scan: of organs in CT, of shares of the values otherwise. */
    private offerPresets(): void {
        const { scene } = this;
        if (!scene) return;
        const { most, all } = scene.ranges;
        const shares: [string, [number, number]][] = [
            ["2nd to 98th percentile", most],
            ["All values", all],
        ];
        const offered = scene.unit === "HU" ? CT_WINDOWS : shares;
        const options = offered.map(([name, [low, high]]) => el("option", { value: `${low} ${high}` }, name));
        this.preset.replaceChildren(el("option", { value: "" }, "Window…"), ...options);
    }

    private usePreset(): void {
        const [low, high] = this.preset.value.split(" ").map(Number);
        if (this.scene && low !== undefined && high !== undefined) this.scene.window = [low, high];
    }

    /** Marks the preset that the window is, if it is one. */
    private markPreset([low, high]: [number, number]): void {
        const name = `${low} ${high}`;
        this.preset.value = [...this.preset.options].some((option) => option.value === name) ? name : "";
    }

    /** The images as they are drawn; null without any. */
    snapshot(): Snapshot | null {
        return this.place && this.scene ? this.scene.snapshot() : null;
    }

    /** Opens the canvas. If the driver takes it away, the user can have a new one, which `redraw` then fills. */
    async open(view: View, redraw: () => Promise<void>): Promise<void> {
        const again = async () => {
            clear("canvas");
            await this.open(this.view, redraw);
            await redraw();
        };
        const action = { label: "Draw the images again", act: () => void again() };
        try {
            this.scene = await Scene.open(byId("holder"), "canvas", {
                onCrosshair: (place) => this.crosshair(place),
                onPointer: (place) => this.tell(place ?? this.scene?.crosshair ?? null),
                onWindow: (window) => this.showWindow(window),
                onStroke: this.onStroke,
                onLost: () => {
                    this.scene = null;
                    warn("canvas", "The graphics driver took the images away (its memory may be full).", [action]);
                },
            });
            this.scene.onView = (chosen) => this.choose(chosen);
            this.scene.onKey = (key) => this.key(key) || this.onKey(key);
        } catch (error) {
            this.scene = null;
            warn("canvas", `The images cannot be drawn: ${sentence(error)}.`, [action]);
        }
        this.apply();
        this.setView(view);
    }

    async show(scan: Uint8Array, name: string, window: [number, number] | null): Promise<void> {
        if (!this.scene) return;
        await this.scene.show(scan, name, window);
        this.offerPresets();
        this.markPreset(this.scene.window);
        clear("images");
    }

    /** Shows nothing, until the next scan is there. */
    clear(): void {
        this.scene?.clear();
        byId("slice-at").textContent = "";
        byId("readout").replaceChildren();
        byId("amounts").replaceChildren();
    }

    async setLayer(name: LayerName, bytes: Uint8Array | null, style: Style): Promise<void> {
        await this.scene?.setLayer(name, bytes, style);
        this.tell(this.scene?.crosshair ?? null);
        this.tellAmounts();
    }

    setStyle(name: LayerName, style: Style): void {
        this.scene?.setStyle(name, style);
    }

    setView(view: View): void {
        this.view = view;
        const radio = byId("views").querySelector<HTMLInputElement>(`[value="${view}"]`);
        if (radio) radio.checked = true;
        this.scene?.setView(view);
        this.onLook();
        const place = this.scene?.crosshair;
        if (place) this.crosshair(place);
    }

    private choose(view: View): void {
        this.setView(view);
        this.onView(view);
    }

    private crosshair(place: Place): void {
        const axis = AXES[this.view];
        const [at, of] = [(place.voxel[axis] ?? 0) + 1, place.voxels[axis] ?? 1];
        this.slider.max = String(of);
        this.slider.value = String(at);
        byId("slice-name").textContent = `${AXIS_NAMES[axis]} slice`;
        byId("slice-at").textContent = `${at} of ${of}`;
        this.tell(place);
        this.onMoved(place.mm);
        this.tellAmounts();
    }

    private toSlice(slice: number): void {
        const place = this.scene?.crosshair;
        if (!place) return;
        const axis = AXES[this.view];
        const step: [number, number, number] = [0, 0, 0];
        step[axis] = slice - place.voxel[axis];
        this.scene?.move(step);
    }

    private showWindow([low, high]: [number, number]): void {
        this.low.value = rounded(low);
        this.high.value = rounded(high);
        byId("window-now").textContent = `${rounded(low)} to ${rounded(high)}`;
        this.markPreset([low, high]);
        this.onLook();
    }

    /** Slice, place, value and labels. */
    private tell(place: Place | null): void {
        if (!place) return;
        const unit = this.scene?.unit ?? "";
        const slices = place.voxel.map((voxel, axis) => `${voxel + 1}/${place.voxels[axis]}`);
        const facts: [string, string][] = [
            ["Slice", `S ${slices[0]}  C ${slices[1]}  A ${slices[2]}`],
            ["mm", place.mm.map((value) => value.toFixed(1)).join(", ")],
            [unit || "Value", rounded(place.value)],
        ];
        for (const [layer, name] of Object.entries(LAYER_NAMES) as [LayerName, string][]) {
            const label = place.labels[layer];
            if (label !== undefined) facts.push([name, this.classes[label] ?? String(label)]);
        }
        byId("readout").replaceChildren(
            ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
        );
    }

    /** How much of each class is in the slice shown, and in all. */
    private tellAmounts(): void {
        const axis = AXES[this.view];
        const of = MASKS.map(([mask, name]) => [name, this.scene?.amounts(mask, this.classes.length, axis) ?? []] as const);
        const there = new Map(of.filter(([, amounts]) => amounts.length > 0));
        byId("amounts").replaceChildren(...amountsTable(this.classes.slice(1), there));
    }

    /** What a picture says of the view. */
    get details(): string[] {
        const [low, high] = this.window.map(rounded);
        const slice = `${byId("slice-name").textContent?.toLowerCase()} ${byId("slice-at").textContent}`;
        const unit = this.scene?.unit;
        return [slice, `window ${low} to ${high}${unit ? ` ${unit}` : ""}`, "the patient’s right is on the left"];
    }

    /** What users draw on; null without images. */
    get paper(): Scene | null {
        return this.place ? this.scene : null;
    }

    /** Where the crosshair is; null without images. */
    get place(): Place | null {
        return this.scene?.crosshair ?? null;
    }

    get shownView(): View {
        return this.view;
    }

    /** The values that are black and white. */
    get window(): [number, number] {
        return this.scene?.window ?? [0, 1];
    }

    /** Names of the labels, background first. */
    classes: string[] = [];
}

/** A value to two digits after the point, as far as it has them. */
function rounded(value: number): string {
    return String(Math.round(value * 100) / 100);
}
