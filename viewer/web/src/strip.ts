/** A line for each site: every case a dot that opens it, the mean, and whether the site is left behind. */

import { keyOf, shortName } from "./cases";
import { el } from "./dom";
import type { Case, Run } from "./run";
import { byClass, bySite, isDistance, mean, titleOf, written, type Score } from "./scores";

/** A site whose mean lies so far below that of all others' cases is pointed out, as shares go from 0 to 1. */
const LEFT_BEHIND = 0.1;

export class Strip {
    private readonly dots = new Map<string, HTMLButtonElement>();
    private chosen = "";

    constructor(
        private readonly place: HTMLElement,
        private readonly onChoice: (key: string) => void,
    ) {}

    show(run: Run, score: Score): void {
        this.dots.clear();
        const value = (one: Case) => mean(byClass(one, score, run.classes.length - 1));
        const distances = run.cases.map(value).filter((one) => one !== null);
        const most = isDistance(score) ? Math.max(1, ...distances) : 1;
        const lines = bySite(run.cases, score).map(([site, cases]) => {
            const values = cases.map(value);
            const others = mean(run.cases.filter((one) => one.site !== site).map(value));
            return this.line({ site, cases, values, others, most, score });
        });
        const scale = el(
            "div",
            { class: "scale", "aria-hidden": true },
            el("span", {}, "0"),
            el("span", {}, `${titleOf(score)}, mean over the classes`),
            el("span", {}, isDistance(score) ? written(most, score) : "1"),
        );
        this.place.replaceChildren(...lines, scale);
        this.select(this.chosen);
    }

    select(key: string): void {
        this.chosen = key;
        for (const [name, dot] of this.dots) dot.classList.toggle("chosen", name === key);
    }

    private line({ site, cases, values, others, most, score }: Line): HTMLElement {
        const own = mean(values);
        const there = values.filter((value) => value !== null);
        const spread = there.length ? [Math.min(...there), Math.max(...there)] : [];
        const range = spread.map((value) => written(value, score)).join(" to ");
        const behind = !isDistance(score) && own !== null && others !== null && others - own >= LEFT_BEHIND;
        const dots = cases.map((one, index) => {
            const at = values[index] ?? null;
            const name = `${site}, ${shortName(one)}: ${written(at, score)}`;
            const dot = el("button", { type: "button", class: "dot", tabindex: -1, title: name, "aria-label": name });
            // What has no distance lies at the bad end.
            dot.style.insetInlineStart = `${(100 * (at ?? most)) / most}%`;
            dot.onclick = () => this.onChoice(keyOf(one));
            this.dots.set(keyOf(one), dot);
            return dot;
        });
        const middle = own === null ? [] : [el("i", { class: "mean", style: `inset-inline-start: ${(100 * own) / most}%` })];
        const words = `mean ${written(own, score)}, ${range || "none measured"}`;
        const finding = behind ? [el("strong", {}, `${written((others ?? 0) - (own ?? 0), score)} below the others`)] : [];
        return el(
            "div",
            { class: behind ? "line behind" : "line", role: "group", "aria-label": `Site ${site}` },
            el("b", {}, site),
            el("div", { class: "track" }, ...middle, ...dots),
            el("span", { class: "words" }, words, " ", ...finding),
        );
    }
}

interface Line {
    site: string;
    cases: Case[];
    values: (number | null)[];
    /** Mean of all other sites' cases. */
    others: number | null;
    /** The end of the scale. */
    most: number;
    score: Score;
}
