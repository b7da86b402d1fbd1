/** The overlays and their legend: every layer and every label has a switch, every layer an opacity. */

import { el } from "./dom";

/** In the order in which they are drawn. */
export const LAYERS = ["truth", "native", "browser", "missed", "moved"] as const;
export type LayerName = (typeof LAYERS)[number];
export type Colour = readonly [number, number, number];

interface About {
    title: string;
    /** What stands there while the layer is not. */
    missing: string;
    /** Of the first class; the others follow around the colour wheel. Differences have one colour. */
    hue: number;
    difference?: true;
    on: boolean;
}

const ABOUT: Record<LayerName, About> = {
    truth: { title: "Truth", missing: "none", hue: 145, on: true },
    native: { title: "Native", missing: "none", hue: 210, on: true },
    browser: { title: "Browser", missing: "press Segment", hue: 30, on: true },
    missed: { title: "Native ≠ truth", missing: "needs both", hue: 350, difference: true, on: false },
    moved: { title: "Browser ≠ native", missing: "press Segment", hue: 300, difference: true, on: false },
};

/** How a layer is to be drawn. */
export interface Style {
    /** 0 if it is switched off. */
    opacity: number;
    /** By label; label 0 and those that are switched off have none. */
    colours: (Colour | null)[];
}

/** A colour that is on the images, and what it means. */
export interface Shade {
    name: string;
    colour: Colour;
}

interface Layer {
    on: boolean;
    /** The page switched it off, not the user. */
    aside: boolean;
    opacity: number;
    hidden: Set<number>;
    /** Whether there is something to draw, or could be on demand. */
    there: boolean;
}

export class Legend {
    private readonly layers = new Map<LayerName, Layer>();
    private readonly places = new Map<LayerName, HTMLElement>();
    private classes: string[] = [];

    constructor(
        private readonly place: HTMLElement,
        private readonly onChange: (name: LayerName) => void,
    ) {
        for (const name of LAYERS) {
            this.layers.set(name, { on: ABOUT[name].on, aside: false, opacity: 0.5, hidden: new Set(), there: false });
        }
    }

    /** Names of the classes, background first. */
    setClasses(classes: string[]): void {
        this.classes = classes;
        this.place.replaceChildren(...LAYERS.map((name) => this.draw(name)));
    }

    /** Whether a layer can be switched on. */
    setThere(name: LayerName, there: boolean): void {
        const layer = this.of(name);
        if (layer.there === there) return;
        layer.there = there;
        const old = this.places.get(name);
        old?.replaceWith(this.draw(name));
    }

    /** Switches a layer off for a while, and then on again if it was on. */
    setAside(name: LayerName, aside: boolean): void {
        const layer = this.of(name);
        if (layer.aside === aside || (aside && !layer.on)) return;
        layer.aside = aside;
        layer.on = !aside;
        this.places.get(name)?.replaceWith(this.draw(name));
    }

    /** Switches a layer that is there on or off. */
    toggle(name: LayerName): void {
        this.place.querySelector<HTMLInputElement>(`[data-layer="${name}"]:not(:disabled)`)?.click();
    }

    isOn(name: LayerName): boolean {
        const layer = this.of(name);
        return layer.on && layer.there;
    }

    style(name: LayerName): Style {
        const layer = this.of(name);
        const labels = ABOUT[name].difference ? [1] : [...this.classes.keys()].slice(1);
        const colours = labels.map((label) => (layer.hidden.has(label) ? null : colour(name, label)));
        return { opacity: this.isOn(name) ? layer.opacity : 0, colours: [null, ...colours] };
    }

    /** What is drawn of all layers. */
    shades(): Shade[] {
        return LAYERS.flatMap((name) => {
            const { opacity, colours } = this.style(name);
            if (opacity === 0) return [];
            return colours.flatMap((of, label) => {
                if (!of) return [];
                const title = ABOUT[name].difference ? ABOUT[name].title : `${ABOUT[name].title}: ${this.classes[label]}`;
                return [{ name: title, colour: of }];
            });
        });
    }

    private of(name: LayerName): Layer {
        const layer = this.layers.get(name);
        if (!layer) throw new Error(`there is no layer ${name}`);
        return layer;
    }

    private draw(name: LayerName): HTMLElement {
        const layer = this.of(name);
        const { title, missing, difference } = ABOUT[name];
        const toggle = el("input", { type: "checkbox", "data-layer": name, checked: layer.on, disabled: !layer.there });
        toggle.onchange = () => {
            layer.on = toggle.checked;
            layer.aside = false;
            this.onChange(name);
        };
        const opacity = el("input", {
            type: "range",
            min: 0,
            max: 1,
            step: 0.05,
            value: layer.opacity,
            disabled: !layer.there,
            "aria-label": `Opacity of ${title}`,
        });
        opacity.oninput = () => {
            layer.opacity = opacity.valueAsNumber;
            this.onChange(name);
        };
        const swatch = difference ? [el("i", { class: "swatch", style: background(name, 1) })] : [];
        const head = el("label", {}, toggle, ...swatch, el("span", {}, title));
        const note = layer.there ? [] : [el("small", {}, missing)];
        const labels = difference || !layer.there ? [] : [this.labels(name, layer)];
        const made = el("div", { class: "layer", "data-name": name }, head, ...note, opacity, ...labels);
        this.places.set(name, made);
        return made;
    }

    private labels(name: LayerName, layer: Layer): HTMLElement {
        const chips = this.classes.slice(1).map((title, index) => {
            const label = index + 1;
            const chip = el(
                "button",
                { type: "button", class: "label", "aria-pressed": String(!layer.hidden.has(label)) },
                el("i", { class: "swatch", style: background(name, label) }),
                title,
            );
            chip.onclick = () => {
                if (!layer.hidden.delete(label)) layer.hidden.add(label);
                chip.setAttribute("aria-pressed", String(!layer.hidden.has(label)));
                this.onChange(name);
            };
            return chip;
        });
        return el("div", { class: "labels", role: "group", "aria-label": `Labels of ${ABOUT[name].title}` }, ...chips);
    }
}

/** Red, green and blue, 0 to 255, of a label in a layer. */
export function colour(name: LayerName, label: number): Colour {
    const hue = (ABOUT[name].hue + 47 * (label - 1)) % 360;
    return fromHue(hue, label % 2 ? 0.55 : 0.68);
}

function fromHue(hue: number, lightness: number): Colour {
    const chroma = 0.9 * Math.min(lightness, 1 - lightness);
    const part = (shift: number) => {
        const place = (shift + hue / 30) % 12;
        return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(place - 3, 9 - place, 1))));
    };
    return [part(0), part(8), part(4)];
}

function background(name: LayerName, label: number): string {
    return `background: rgb(${colour(name, label).join(" ")})`;
}
