/** The strokes of a drawing, to be taken back and brought back: of each the voxels that it changed. */

interface Stroke {
    at: Uint32Array;
    before: Uint8Array;
    after: Uint8Array;
}

/** So many strokes are kept. */
const MOST = 100;

export class Strokes {
    private last: Uint8Array;
    private done: Stroke[] = [];
    private undone: Stroke[] = [];

    constructor(bitmap: Uint8Array) {
        this.last = bitmap.slice();
    }

    get undoable(): boolean {
        return this.done.length > 0;
    }

    get redoable(): boolean {
        return this.undone.length > 0;
    }

    /** Notes what has changed since the last stroke. */
    take(bitmap: Uint8Array): void {
        const at: number[] = [];
        bitmap.forEach((label, voxel) => {
            if (label !== this.last[voxel]) at.push(voxel);
        });
        if (at.length === 0) return;
        const of = (map: Uint8Array) => Uint8Array.from(at, (voxel) => map[voxel] ?? 0);
        this.done = [...this.done, { at: Uint32Array.from(at), before: of(this.last), after: of(bitmap) }].slice(-MOST);
        this.undone = [];
        this.last = bitmap.slice();
    }

    undo(bitmap: Uint8Array): void {
        const stroke = this.done.pop();
        if (!stroke) return;
        this.undone.push(stroke);
        this.put(bitmap, stroke.at, stroke.before);
    }

    redo(bitmap: Uint8Array): void {
        const stroke = this.undone.pop();
        if (!stroke) return;
        this.done.push(stroke);
        this.put(bitmap, stroke.at, stroke.after);
    }

    private put(bitmap: Uint8Array, at: Uint32Array, labels: Uint8Array): void {
        at.forEach((voxel, index) => {
            bitmap[voxel] = this.last[voxel] = labels[index] ?? 0;
        });
    }
}
