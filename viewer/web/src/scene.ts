/** The images: NiiVue's three planes and 3D, with label maps over the scan. */

import {
    cmapper,
    DRAG_MODE,
    MULTIPLANAR_TYPE,
    Niivue,
    NVImage,
    SHOW_RENDER,
    SLICE_TYPE,
    type NiiVueLocation,
} from "@niivue/niivue";

import type { View } from "./address";
import { Counts, type Amount, type LabelMap, type Triple } from "./amounts";
import { el } from "./dom";
import { Strokes } from "./strokes";
import { LAYERS, type Colour, type LayerName, type Style } from "./layers";

/** A place in the scan. */
export interface Place {
    /** Voxel along right, anterior, superior, from 0. */
    voxel: [number, number, number];
    /** How many there are. */
    voxels: [number, number, number];
    mm: [number, number, number];
    value: number;
    /** Labels of the layers that are there. */
    labels: Partial<Record<LayerName, number>>;
}

/** The lowest value of a scan in Hounsfield units is air, below this. */
const AIR = -500;

const SLICES: Record<View, SLICE_TYPE> = {
    planes: SLICE_TYPE.MULTIPLANAR,
    axial: SLICE_TYPE.AXIAL,
    coronal: SLICE_TYPE.CORONAL,
    sagittal: SLICE_TYPE.SAGITTAL,
    "3d": SLICE_TYPE.RENDER,
};

export interface Listeners {
    /** The crosshair moved. */
    onCrosshair: (place: Place) => void;
    /** The pointer moved; null when it is on no slice. */
    onPointer: (place: Place | null) => void;
    /** The graphics driver took the canvas away. */
    onLost: () => void;
    onWindow: (window: [number, number]) => void;
    /**
     * Something was drawn, or a stroke taken back: whether there is one to take back, and one to bring back; and whether it
     * was the user's pen.
     */
    onStroke: (undoable: boolean, redoable: boolean, byPen: boolean) => void;
}

/** NiiVue, whose scan may be smooth while labels stay as they are, and which tells of every change of the window. */
class Images extends Niivue {
    smooth = false;

    override windowingHandler(x: number, y: number, index = 0): void {
        super.windowingHandler(x, y, index);
        const scan = this.volumes[index];
        if (scan) this.onIntensityChange(scan);
    }

    override updateInterpolation(layer: number, isForceLinear = false): void {
        super.updateInterpolation(layer, isForceLinear || (layer === 0 && this.smooth));
    }
}

/** The images as they are drawn, for a picture. */
export interface Snapshot {
    canvas: HTMLCanvasElement;
    /** Of the first plane; none without a plane. */
    millimetresPerPixel: number | null;
}

export class Scene {
    private readonly nv: Images;
    private readonly canvas: HTMLCanvasElement;
    private strokes: Strokes | null = null;
    private readonly overlays = new Map<LayerName, NVImage>();
    /** Of the layers and of the drawing, once they are asked for. */
    private readonly counts = new Map<LayerName | "drawing", Counts>();
    private initial: [number, number] = [0, 1];
    /** Between them lie all but the lowest and the highest 2 % of the values. */
    private percentiles: [number, number] = [0, 1];
    /** Counts the scans, so that a slow one does not come after a later one. */
    private scans = 0;

    private constructor(
        holder: HTMLElement,
        id: string,
        private readonly listeners: Listeners,
    ) {
        this.canvas = el("canvas", {
            id,
            role: "application",
            "aria-label": "Scan with overlays. Arrow keys and page keys move the crosshair.",
            "aria-describedby": "readout",
        });
        holder.replaceChildren(this.canvas);
        this.nv = new Images({
            backColor: [0.04, 0.045, 0.055, 1],
            crosshairColor: [0.85, 0.85, 0.4, 0.7],
            crosshairWidth: 0.4,
            crosshairWidthUnit: "percent",
            loadingText: " ",
            crosshairGap: 6,
            multiplanarLayout: MULTIPLANAR_TYPE.GRID,
            multiplanarShowRender: SHOW_RENDER.ALWAYS,
            isNearestInterpolation: true,
            measureLineColor: [1, 0.85, 0.2, 1],
            measureTextColor: [1, 1, 1, 1],
            measureTextHeight: 0.04,
            // Shown as radiologists look at it: the patient's right on the left.
            isRadiologicalConvention: true,
            dragAndDropEnabled: false,
            isOrientCube: false,
            logLevel: "silent",
        });
        // Among the options above they would be passed over.
        this.nv.setTouchEventConfig({ singleTouch: DRAG_MODE.crosshair, doubleTouch: DRAG_MODE.windowing });
        this.measuring = false;
    }

    /** Attaches to a holder, as the canvas of that id. Rejects without WebGL 2. */
    static async open(holder: HTMLElement, id: string, listeners: Listeners): Promise<Scene> {
        const scene = new Scene(holder, id, listeners);
        const { canvas, nv } = scene;
        if (!document.createElement("canvas").getContext("webgl2")) {
            throw new Error("this browser offers no WebGL 2, so the images cannot be drawn; segmenting and saving still work");
        }
        await nv.attachToCanvas(canvas, false);
        nv.onLocationChange = (location) => listeners.onCrosshair(scene.placeOf(location as NiiVueLocation));
        nv.onDrawingChanged = (action) => {
            if (action === "draw") scene.stroke(true);
        };
        nv.onIntensityChange = () => listeners.onWindow(scene.window);
        canvas.addEventListener("webglcontextlost", (event) => {
            event.preventDefault();
            listeners.onLost();
        });
        canvas.addEventListener("pointermove", (event) => listeners.onPointer(scene.under(event)));
        canvas.addEventListener("pointerleave", () => listeners.onPointer(null));
        // NiiVue's own keys would change the view behind the page's back.
        const own = (event: Event) => event.stopImmediatePropagation();
        canvas.parentElement?.addEventListener("keydown", (event) => scene.key(event), { capture: true });
        canvas.parentElement?.addEventListener("keyup", own, { capture: true });
        return scene;
    }

    /** What the user's keys on the images choose as a view. */
    onView: (view: View) => void = () => {};

    /** Another key on the images; whether it means something. */
    onKey: (key: string) => boolean = () => false;

    /** Shows a scan without overlays. `window` is the range from black to white; the scan's own without one. */
    async show(scan: Uint8Array, name: string, window: [number, number] | null): Promise<void> {
        const turn = ++this.scans;
        const image = await read(scan, name);
        if (turn !== this.scans) return;
        this.empty();
        this.percentiles = [image.robust_min ?? 0, image.robust_max ?? 1];
        const [low, high] = window ?? [image.robust_min ?? 0, image.robust_max ?? 1];
        // What a double click resets to.
        [image.robust_min, image.robust_max] = [low, high];
        [image.cal_min, image.cal_max] = [low, high];
        this.initial = [low, high];
        this.nv.addVolume(image);
        this.nv.scene.crosshairPos = this.nv.vox2frac(middle(image));
        this.nv.updateGLVolume();
        this.nv.createOnLocationChange();
        this.listeners.onWindow([low, high]);
    }

    private empty(): void {
        this.stopDrawing();
        this.overlays.clear();
        this.counts.clear();
        for (const volume of [...this.nv.volumes].reverse()) this.nv.removeVolume(volume);
    }

    /** Takes everything away, and what is still being read. */
    clear(): void {
        this.scans++;
        this.empty();
    }

    /** Puts a label map over the scan, or takes it away. */
    async setLayer(name: LayerName, bytes: Uint8Array | null, style: Style): Promise<void> {
        const turn = this.scans;
        const image = bytes && (await read(bytes, `${name}.nii.gz`));
        if (turn !== this.scans) return;
        this.counts.delete(name);
        const old = this.overlays.get(name);
        if (old) {
            this.overlays.delete(name);
            this.nv.removeVolume(old);
        }
        if (!image || this.nv.volumes.length === 0) return;
        this.overlays.set(name, image);
        paint(image, style);
        this.nv.addVolume(image);
        this.sort();
    }

    /** Draws a layer in another style. */
    setStyle(name: LayerName, style: Style): void {
        const image = this.overlays.get(name);
        if (!image) return;
        paint(image, style);
        this.nv.updateGLVolume();
    }

    setView(view: View): void {
        this.nv.setSliceType(SLICES[view]);
    }

    get window(): [number, number] {
        const scan = this.nv.volumes[0];
        return [scan?.cal_min ?? 0, scan?.cal_max ?? 1];
    }

    set window([low, high]: [number, number]) {
        const scan = this.nv.volumes[0];
        if (!scan || !(low < high)) return;
        [scan.cal_min, scan.cal_max] = [low, high];
        this.nv.updateGLVolume();
        this.listeners.onWindow([low, high]);
    }

    resetWindow(): void {
        this.window = this.initial;
    }

    /** Ranges that a scan without a unit is looked at in: nearly all of its values, or all. */
    get ranges(): { most: [number, number]; all: [number, number] } {
        const scan = this.nv.volumes[0];
        return { most: this.percentiles, all: [scan?.global_min ?? 0, scan?.global_max ?? 1] };
    }

    /**
     * Lets the user draw: on a mask, or on an empty one. Colours are of the labels from 1 on. While something is drawn, the
     * mask is a stroke more.
     */
    async draw(mask: Uint8Array | null, colours: Colour[]): Promise<void> {
        const image = mask && (await read(mask, "drawing.nii.gz"));
        if (this.nv.volumes.length === 0) throw new Error("there is no scan to draw on");
        const drawn = this.nv.drawBitmap ? this.strokes : null;
        this.nv.createEmptyDrawing();
        if (image && !this.nv.loadDrawing(image)) throw new Error("the mask is not on the scan's grid");
        const all: Colour[] = [[0, 0, 0], ...colours];
        const channel = (index: 0 | 1 | 2) => all.map((colour) => colour[index]);
        const labels = all.map((_, label) => String(label));
        const map = { R: channel(0), G: channel(1), B: channel(2), A: all.map((_, label) => (label ? 255 : 0)) };
        this.nv.drawLut = cmapper.makeDrawLut({ ...map, I: [...labels.keys()], labels });
        this.nv.setDrawOpacity(0.6);
        // The colours go with the layers.
        this.nv.updateGLVolume();
        this.nv.refreshDrawing(true);
        this.strokes = drawn ?? (this.nv.drawBitmap && new Strokes(this.nv.drawBitmap));
        this.stroke();
    }

    /** What the left button does on a plane: draws a label, takes away (label 0), or moves the crosshair (null). */
    set pen(pen: { label: number; size: number } | null) {
        if (pen) {
            this.nv.setPenValue(pen.label, false);
            this.nv.opts.penSize = pen.size;
        }
        this.nv.setDrawingEnabled(pen !== null && this.nv.drawBitmap !== null);
    }

    /** The drawing as NIfTI in the order of the scan's file; null if there is none. */
    async drawing(): Promise<Uint8Array | null> {
        if (!this.nv.drawBitmap) return null;
        const bytes = await this.nv.saveImage({ filename: "", isSaveDrawing: true, volumeByIndex: 0 });
        return bytes instanceof Uint8Array ? bytes : null;
    }

    /** One stroke back or forth. */
    step(back: boolean): void {
        const { strokes, nv } = this;
        if (!strokes || !nv.drawBitmap) return;
        if (back) strokes.undo(nv.drawBitmap);
        else strokes.redo(nv.drawBitmap);
        nv.refreshDrawing(true);
        this.counts.delete("drawing");
        this.listeners.onStroke(strokes.undoable, strokes.redoable, false);
    }

    /** Ends drawing; what was drawn is gone. */
    stopDrawing(): void {
        this.nv.setDrawingEnabled(false);
        if (this.nv.drawBitmap) this.nv.closeDrawing();
        this.strokes = null;
        this.counts.delete("drawing");
    }

    private stroke(byPen = false): void {
        const { strokes, nv } = this;
        if (!strokes || !nv.drawBitmap) return;
        strokes.take(nv.drawBitmap);
        this.counts.delete("drawing");
        this.listeners.onStroke(strokes.undoable, strokes.redoable, byPen);
    }

    /** Draws the scan smoothly, or voxel by voxel; labels are always voxel by voxel. */
    set smooth(smooth: boolean) {
        this.nv.smooth = smooth;
        if (this.nv.volumes.length === 0) return;
        this.nv.updateInterpolation(0);
        this.nv.drawScene();
    }

    /** Whether a drag measures, in place of moving the crosshair. What was measured goes with the mode. */
    set measuring(measuring: boolean) {
        const primary = measuring ? DRAG_MODE.measurement : DRAG_MODE.crosshair;
        this.nv.setMouseEventConfig({
            leftButton: { primary, withShift: DRAG_MODE.windowing, withCtrl: DRAG_MODE.pan },
            rightButton: DRAG_MODE.windowing,
            centerButton: DRAG_MODE.pan,
        });
        if (!measuring && this.nv.volumes.length) this.nv.clearMeasurements();
    }

    /** The images as they are. */
    snapshot(): Snapshot {
        this.nv.drawScene();
        const copy = el("canvas", { width: this.canvas.width, height: this.canvas.height });
        copy.getContext("2d")?.drawImage(this.canvas, 0, 0);
        const plane = this.nv.screenSlices.find((one) => one.axCorSag !== SLICE_TYPE.RENDER);
        const [wide, pixels] = [plane?.fovMM[0], plane?.leftTopWidthHeight[2]];
        return { canvas: copy, millimetresPerPixel: wide && pixels ? Math.abs(wide) / pixels : null };
    }

    /** Hounsfield units, as far as the values tell; nothing for other scans. */
    get unit(): string {
        return (this.nv.volumes[0]?.global_min ?? 0) <= AIR ? "HU" : "";
    }

    /** Moves the crosshair by voxels to the right, to the front and up. */
    move([x, y, z]: [number, number, number]): void {
        if (this.nv.volumes.length) this.nv.moveCrosshairInVox(x, y, z);
    }

    /** Moves the crosshair to a place, mm. */
    goTo(mm: [number, number, number]): void {
        if (this.nv.volumes.length === 0) return;
        this.nv.scene.crosshairPos = this.nv.mm2frac(mm, 0, true);
        this.nv.drawScene();
        this.nv.createOnLocationChange();
    }

    /** Where the crosshair is; null without a scan. */
    get crosshair(): Place | null {
        return this.nv.volumes.length ? this.placeAt(this.nv.scene.crosshairPos) : null;
    }

    /**
     * How much a mask, or the drawing, has of each label from 1 on: in the slice at the crosshair along an axis, and in all.
     * Nothing of what is not there.
     */
    amounts(name: LayerName | "drawing", labels: number, axis: 0 | 1 | 2): Amount[] {
        const image = this.imageOf(name);
        const map = this.labels(name);
        if (!image || !map || !this.crosshair) return [];
        const counts = this.counts.get(name) ?? new Counts(map, labels);
        this.counts.set(name, counts);
        const slice = image.mm2vox(this.crosshair.mm)[axis] ?? 0;
        return Array.from({ length: labels - 1 }, (_, index) => counts.of(index + 1, axis, slice));
    }

    /** A mask, or the drawing, voxel by voxel; null without it. */
    labels(name: LayerName | "drawing"): LabelMap | null {
        const image = this.imageOf(name);
        const values = name === "drawing" ? this.nv.drawBitmap : image?.img;
        return image && values ? labelMap(image, values, name === "drawing") : null;
    }

    /** The image on whose grid a mask is. */
    private imageOf(name: LayerName | "drawing"): NVImage | undefined {
        return name === "drawing" ? this.nv.volumes[0] : this.overlays.get(name);
    }

    private key(event: KeyboardEvent): void {
        const moves: Record<string, [number, number, number]> = {
            // To the left on the screen is to the patient's right.
            ArrowLeft: [1, 0, 0],
            ArrowRight: [-1, 0, 0],
            ArrowUp: [0, 1, 0],
            ArrowDown: [0, -1, 0],
            PageUp: [0, 0, 1],
            PageDown: [0, 0, -1],
        };
        if (event.target !== this.canvas || event.ctrlKey || event.altKey || event.metaKey) return;
        event.stopPropagation();
        const view = Object.keys(SLICES)[Number(event.key) - 1] as View | undefined;
        const move = moves[event.key];
        if (move) this.move(move);
        else if (view) this.onView(view);
        if (move || view || this.onKey(event.key)) event.preventDefault();
        else if (event.key === "Escape") document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    }

    private under(event: PointerEvent): Place | null {
        if (!this.nv.volumes.length) return null;
        const box = this.canvas.getBoundingClientRect();
        const scale = this.canvas.width / box.width;
        const frac = this.nv.canvasPos2frac([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
        return frac[0] < 0 ? null : this.placeAt(frac);
    }

    private placeOf(location: NiiVueLocation): Place {
        return this.placeAt(location.frac);
    }

    private placeAt(frac: ArrayLike<number> & Parameters<Niivue["frac2mm"]>[0]): Place {
        const scan = this.nv.volumes[0];
        if (!scan) throw new Error("there is no scan");
        const mm = this.nv.frac2mm(frac, 0, true);
        const at = (image: NVImage) => {
            const [x, y, z] = image.mm2vox([mm[0], mm[1], mm[2]]);
            return image.getValue(x ?? 0, y ?? 0, z ?? 0);
        };
        const labels: Place["labels"] = {};
        for (const [name, image] of this.overlays) labels[name] = at(image);
        const [x, y, z] = this.nv.frac2vox(frac);
        const [, right, front, up] = scan.dimsRAS ?? [];
        return {
            voxel: [x ?? 0, y ?? 0, z ?? 0],
            voxels: [right ?? 1, front ?? 1, up ?? 1],
            mm: [mm[0], mm[1], mm[2]],
            value: at(scan),
            labels,
        };
    }

    /** Layers lie over each other in their own order, however they came. */
    private sort(): void {
        const wanted = LAYERS.map((name) => this.overlays.get(name)).filter((image) => image !== undefined);
        wanted.forEach((image, index) => this.nv.setVolume(image, index + 1));
    }
}

async function read(bytes: Uint8Array, name: string): Promise<NVImage> {
    const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const image = await NVImage.loadFromUrl({
        url: bytes,
        // NiiVue goes by the ending.
        name: name.replace(/(\.nii)?(\.gz)?$/i, packed ? ".nii.gz" : ".nii"),
        colorbarVisible: false,
        limitFrames4D: 1,
    });
    if (!image?.img) throw new Error(`${name} cannot be drawn`);
    return image;
}

function paint(image: NVImage, { opacity, colours }: Style): void {
    const channel = (index: 0 | 1 | 2) => colours.map((colour) => colour?.[index] ?? 0);
    image.setColormapLabel({
        R: channel(0),
        G: channel(1),
        B: channel(2),
        A: colours.map((colour) => (colour ? 255 : 0)),
        I: colours.map((_, label) => label),
    });
    image.opacity = opacity;
}

function middle(image: NVImage): [number, number, number] {
    const [, x, y, z] = image.dimsRAS ?? [];
    return [x, y, z].map((side) => Math.floor((side ?? 1) / 2)) as [number, number, number];
}

/** NiiVue keeps an image in its file's order, but a drawing to the right, to the front and up. */
function labelMap(image: NVImage, values: ArrayLike<number>, isDrawing: boolean): LabelMap {
    const [, x = 1, y = 1, z = 1] = image.dimsRAS ?? [];
    const straight = { start: 0, steps: [1, x, x * y] as Triple };
    const [across = 0, back = 0, up = 0] = image.img2RASstart ?? [];
    const own = { start: across + back + up, steps: image.img2RASstep as Triple };
    const at = (row: number, column: number) => image.hdr?.affine[row]?.[column] ?? 0;
    // An axis of the file from 1 on, negative where it is turned round.
    const turned = image.permRAS ?? [1, 2, 3];
    const axes = turned.map((axis) => [0, 1, 2].map((row) => Math.sign(axis) * at(row, Math.abs(axis) - 1)) as Triple);
    const first = (axis: number, index: number) => (axis < 0 ? ([x, y, z][index] ?? 1) - 1 : 0);
    const origin = [0, 1, 2].map((row) =>
        turned.reduce((sum, axis, index) => sum + first(axis, index) * at(row, Math.abs(axis) - 1), at(row, 3)),
    ) as Triple;
    return { values, dims: [x, y, z], axes: axes as LabelMap["axes"], origin, ...(isDrawing ? straight : own) };
}
