/** How much there is of each class: its area in the slice shown, and its volume. */

import { el } from "./dom";

/** A label map as it lies in memory. */
export interface LabelMap {
    values: ArrayLike<number>;
    /** Voxels to the right, to the front and up. */
    dims: Triple;
    /** Where in the values the first voxel is, and how far it is to the next along each axis. */
    start: number;
    steps: Triple;
    /** From a voxel to the next along each axis, and where the first one is: millimetres to the right, to the front and up. */
    axes: [Triple, Triple, Triple];
    origin: Triple;
}

export type Triple = [number, number, number];

export interface Amount {
    squareMillimetres: number;
    millilitres: number;
}

/** Labels counted once, so that going through the slices costs nothing. */
export class Counts {
    /** By axis, slice and label. */
    private readonly slices: [Uint32Array, Uint32Array, Uint32Array];
    private readonly all: Uint32Array;

    constructor(
        private readonly map: LabelMap,
        private readonly labels: number,
    ) {
        const { values, dims, start, steps } = map;
        const [xs, ys, zs] = (this.slices = dims.map((side) => new Uint32Array(side * labels)) as typeof this.slices);
        this.all = new Uint32Array(labels);
        const add = (to: Uint32Array, at: number) => (to[at] = (to[at] ?? 0) + 1);
        for (let z = 0; z < dims[2]; z++) {
            for (let y = 0; y < dims[1]; y++) {
                let at = start + y * steps[1] + z * steps[2];
                for (let x = 0; x < dims[0]; x++, at += steps[0]) {
                    const label = values[at] ?? 0;
                    if (label === 0 || label >= labels) continue;
                    add(xs, x * labels + label);
                    add(ys, y * labels + label);
                    add(zs, z * labels + label);
                    add(this.all, label);
                }
            }
        }
    }

    /** Of a label, in a slice along an axis and in all. */
    of(label: number, axis: 0 | 1 | 2, slice: number): Amount {
        const { axes } = this.map;
        const [one, other] = axes.filter((_, index) => index !== axis) as [Triple, Triple];
        return {
            squareMillimetres: (this.slices[axis][slice * this.labels + label] ?? 0) * Math.hypot(...cross(one, other)),
            millilitres: ((this.all[label] ?? 0) * Math.abs(dot(axes[0], cross(axes[1], axes[2])))) / 1000,
        };
    }
}

function cross([a, b, c]: Triple, [x, y, z]: Triple): Triple {
    return [b * z - c * y, c * x - a * z, a * y - b * x];
}

function dot(one: Triple, other: Triple): number {
    return one.reduce((sum, part, axis) => sum + part * (other[axis] ?? 0), 0);
}

/** Rows of classes, without the background, and columns of masks by their names. */
export function amountsTable(classes: string[], masks: Map<string, Amount[]>): HTMLElement[] {
    if (masks.size === 0) return [];
    const head = ["Class", ...masks.keys()].map((name) => el("th", { scope: "col" }, name));
    const rows = classes.map((name, index) => {
        const cells = [...masks.values()].map((amounts) => el("td", {}, ...written(amounts[index])));
        return el("tr", {}, el("th", { scope: "row" }, name), ...cells);
    });
    const caption = el("caption", { class: "hidden" }, "Area in the slice shown, and volume");
    return [el("table", {}, caption, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))];
}

function written(amount: Amount | undefined): HTMLElement[] {
    if (!amount) return [];
    const { squareMillimetres, millilitres } = amount;
    return [
        el("span", {}, `${squareMillimetres.toFixed(0)} mm²`),
        el("span", {}, `${millilitres.toFixed(millilitres < 10 ? 2 : 1)} ml`),
    ];
}
