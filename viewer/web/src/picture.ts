/** A picture of the images to take along: what is drawn, a bar that tells the scale, and what the colours mean. */

import { el } from "./dom";
import type { Shade } from "./layers";
import type { Snapshot } from "./scene";

/** What is written below the images. */
export interface Words {
    title: string;
    /** Slice, window and what else belongs to the view. */
    details: string[];
    shades: Shade[];
}

const GROUND = "#0a0b0e";
const INK = "#e6e9ef";
const QUIET = "#9aa4b3";

/** The longest round number of millimetres that is no wider than this. */
export function barLength(most: number): number {
    const power = 10 ** Math.floor(Math.log10(most));
    const digit = [5, 2, 1].find((one) => one * power <= most) ?? 1;
    return digit * power;
}

/** The picture as PNG. */
export async function picture({ canvas, millimetresPerPixel }: Snapshot, words: Words): Promise<Blob> {
    const unit = Math.max(13, Math.round(canvas.width / 90));
    const font = `${unit}px system-ui, sans-serif`;
    const details = wrapped(words.details, canvas.width - 2 * unit, font);
    const lines = 1 + details.length + (words.shades.length ? 1 : 0);
    const high = Math.round(unit * (1.7 * lines + 1.2));
    const whole = el("canvas", { width: canvas.width, height: canvas.height + high });
    const pen = whole.getContext("2d");
    if (!pen) throw new Error("this browser draws no pictures");
    pen.fillStyle = GROUND;
    pen.fillRect(0, 0, whole.width, whole.height);
    pen.drawImage(canvas, 0, 0);
    pen.textBaseline = "middle";
    const write = (text: string, x: number, line: number, colour: string, weight = "") => {
        pen.font = `${weight} ${unit}px system-ui, sans-serif`;
        pen.fillStyle = colour;
        pen.fillText(text, x, canvas.height + unit * (1.3 + 1.7 * line));
        return x + pen.measureText(text).width;
    };
    write(words.title, unit, 0, INK, "600");
    details.forEach((line, index) => write(line, unit, 1 + index, QUIET));
    let x = unit;
    for (const { name, colour } of words.shades) {
        const y = canvas.height + unit * (1.3 + 1.7 * (lines - 1));
        pen.fillStyle = `rgb(${colour.join(" ")})`;
        pen.fillRect(x, y - unit * 0.4, unit * 0.8, unit * 0.8);
        x = write(name, x + unit * 1.2, lines - 1, INK) + unit * 1.4;
    }
    if (millimetresPerPixel) bar(pen, canvas, unit, millimetresPerPixel);
    return new Promise((done, failed) =>
        whole.toBlob((blob) => (blob ? done(blob) : failed(new Error("the picture cannot be written"))), "image/png"),
    );
}

/** The parts in as many lines as it takes. */
function wrapped(parts: string[], most: number, font: string): string[] {
    const pen = el("canvas").getContext("2d");
    if (pen) pen.font = font;
    const fits = (line: string) => !pen || pen.measureText(line).width <= most;
    return parts.reduce<string[]>((lines, part) => {
        const last = lines.at(-1);
        const longer = last === undefined ? part : `${last}  ·  ${part}`;
        return last === undefined || !fits(longer) ? [...lines, part] : [...lines.slice(0, -1), longer];
    }, []);
}

/** At the right below the images. */
function bar(pen: CanvasRenderingContext2D, { width, height }: HTMLCanvasElement, unit: number, scale: number): void {
    const millimetres = barLength(scale * width * 0.15);
    const long = millimetres / scale;
    const [right, y] = [width - unit, height + unit * 1.3];
    pen.strokeStyle = INK;
    pen.lineWidth = Math.max(2, unit / 8);
    pen.beginPath();
    for (const end of [right - long, right]) {
        pen.moveTo(end, y - unit * 0.35);
        pen.lineTo(end, y + unit * 0.35);
    }
    pen.moveTo(right - long, y);
    pen.lineTo(right, y);
    pen.stroke();
    pen.font = `${unit}px system-ui, sans-serif`;
    pen.fillStyle = INK;
    pen.textAlign = "right";
    pen.fillText(millimetres < 10 ? `${millimetres} mm` : `${millimetres / 10} cm`, right - long - unit * 0.6, y);
    pen.textAlign = "left";
}
