/** A second case, or another mask of the same one, of this run or another, beside the images: linked by millimetres, in the same view and window. */

import { keyOf } from "./cases";
import type { Current } from "./current";
import { byId, el } from "./dom";
import type { Engine } from "./engine";
import type { LayerName, Legend } from "./layers";
import { clear, sentence, warn } from "./notices";
import { Scene } from "./scene";
import { loaderOf, type Other, type Shown } from "./shown";
import type { Stage } from "./stage";

const MASKS = ["truth", "native", "browser"] as const;
type MaskName = (typeof MASKS)[number];

const TITLES: Record<MaskName, string> = { truth: "Truth", native: "Native", browser: "Browser" };

export class Beside {
    private scene: Scene | null = null;
    /** What is drawn; of the same case it is the one that the page shows. */
    private shown: Shown | null = null;
    /** Counts what is asked for, so that a slow case does not come after a later one. */
    private turn = 0;
    /** One side moves the other, which is not to move the first again. */
    private moving = false;
    private readonly toggle = byId("open-beside");
    private readonly pane = byId("beside");
    private readonly holder = el("div", { class: "holder" });
    private readonly cases = el("select", { "aria-label": "Case beside" });
    private readonly mask = el("select", { "aria-label": "Mask beside" });

    constructor(
        private readonly current: Current,
        private readonly engine: Engine,
        private readonly stage: Stage,
        private readonly legend: Legend,
    ) {
        this.toggle.onclick = () => void this.setOpen(!!this.pane.hidden);
        this.cases.onchange = () => void this.refresh();
        this.mask.onchange = () => void this.inTurn(() => this.drawMask());
        this.pane.append(el("div", { class: "row" }, this.cases, this.mask), this.holder);
        stage.onMoved = (mm) => this.link(() => this.scene?.goTo(mm));
        stage.onLook = () => this.look();
    }

    /** Draws anew if the case, its masks or the cases to choose from are others now. */
    async refresh(): Promise<void> {
        if (this.pane.hidden) return;
        this.offerCases();
        await this.inTurn(async (turn) => {
            const shown = await this.chosen();
            const scan = shown && (await this.engine.restate(shown.scan.bytes));
            if (turn === this.turn) await this.show(shown, scan);
        });
    }

    /** Does what was asked for last, and says why it cannot be done. */
    private async inTurn(work: (turn: number) => Promise<void>): Promise<void> {
        const turn = ++this.turn;
        try {
            clear("beside");
            await work(turn);
        } catch (error) {
            if (turn === this.turn) warn("beside", `The case beside cannot be shown: ${sentence(error)}`);
        }
    }

    private async setOpen(open: boolean): Promise<void> {
        this.pane.hidden = !open;
        this.toggle.setAttribute("aria-pressed", String(open));
        if (!open) return this.scene?.clear();
        try {
            this.scene ??= await Scene.open(this.holder, "beside-canvas", {
                onCrosshair: ({ mm }) => this.link(() => this.stage.goTo(mm)),
                onPointer: () => {},
                onWindow: () => {},
                onStroke: () => {},
                onLost: () => this.lost(),
            });
            this.shown = null;
            this.look();
            await this.refresh();
        } catch (error) {
            void this.setOpen(false);
            warn("beside", `There can be no images beside: ${sentence(error)}.`);
        }
    }

    private lost(): void {
        this.scene = null;
        void this.setOpen(false);
        warn("beside", "The graphics driver took the images beside away (its memory may be full); press Beside again.");
    }

    /** The case that is chosen: the page's own, or another one, which is read. */
    private async chosen(): Promise<Shown | null> {
        const key = this.cases.value;
        if (key === "" || key === this.current.shown?.key) return this.current.shown;
        if (key === this.shown?.key) return this.shown;
        const load = loaderOf(this.current, key);
        return load ? load() : null;
    }

    private async show(shown: Shown | null, scan: Uint8Array | null): Promise<void> {
        const { scene } = this;
        if (!scene) return;
        if (!shown || !scan) return scene.clear();
        if (shown !== this.shown) {
            this.shown = shown;
            this.moving = true;
            await scene.show(scan, shown.title, this.stage.window).finally(() => (this.moving = false));
            const { place } = this.stage;
            if (place) this.link(() => scene.goTo(place.mm));
        }
        this.offerMasks(shown);
        await this.drawMask();
    }

    private async drawMask(): Promise<void> {
        const { scene, shown, turn } = this;
        if (!scene || !shown) return;
        const { layer, map } = await chosenMask(shown, this.mask.value);
        const bytes = map && (await this.engine.restate(map));
        for (const name of MASKS) {
            if (turn !== this.turn) return;
            await scene.setLayer(name, name === layer ? bytes : null, this.style(name));
        }
    }

    /** As on the page, but there whether or not the layer is switched off on the page. */
    private style(name: LayerName) {
        const style = this.legend.style(name);
        return { ...style, opacity: style.opacity || 0.5 };
    }

    /** The page's own view and window. */
    private look(): void {
        if (!this.scene || this.pane.hidden) return;
        this.scene.setView(this.stage.shownView);
        this.scene.window = this.stage.window;
    }

    private link(move: () => void): void {
        if (this.moving || this.pane.hidden) return;
        this.moving = true;
        try {
            move();
        } finally {
            this.moving = false;
        }
    }

    private offerCases(): void {
        const { run, own } = this.current;
        const keys = [...own.keys(), ...run.cases.map(keyOf)];
        offer(this.cases, [["", "This case"], ...keys.map((key): [string, string] => [key, key])]);
    }

    /** First of all another run's, or else another than the truth. */
    private offerMasks(shown: Shown): void {
        const own = MASKS.filter((name) => maskOf(shown, name)).map((name): [string, string] => [name, TITLES[name]]);
        const others = shown.others.map((other, index): [string, string] => [String(index), titleOf(other)]);
        const fresh = this.mask.options.length === 0;
        offer(this.mask, [...own, ...others, ["", "No mask"]]);
        const first = others[0]?.[0] ?? "native";
        if (fresh && [...this.mask.options].some(({ value }) => value === first)) this.mask.value = first;
    }
}

/** The chosen mask, and the layer in whose colours it is drawn: another run's are those of this run's native one. */
async function chosenMask(shown: Shown, chosen: string): Promise<{ layer: MaskName | null; map: Uint8Array | null }> {
    const layer = MASKS.find((name) => name === chosen);
    if (layer) return { layer, map: maskOf(shown, layer) };
    const other = chosen === "" ? undefined : shown.others[Number(chosen)];
    return other ? { layer: "native", map: await other.mask() } : { layer: null, map: null };
}

function titleOf({ name, dice }: Other): string {
    return `${name}, Dice ${dice.map((value) => value.toFixed(3)).join(", ")}`;
}

function maskOf({ truth, native, outcome }: Shown, name: MaskName): Uint8Array | null {
    return { truth, native, browser: outcome?.mask ?? null }[name];
}

/** Fills a select, and keeps what is chosen if it is still there. */
function offer(select: HTMLSelectElement, options: [value: string, title: string][]): void {
    const chosen = select.value;
    select.replaceChildren(...options.map(([value, title]) => el("option", { value }, title)));
    if (options.some(([value]) => value === chosen)) select.value = chosen;
}
