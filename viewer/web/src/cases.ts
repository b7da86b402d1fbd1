/** The list of cases: by site, worst first, to be searched and folded. */

import { el } from "./dom";
import type { Case, Run } from "./run";
import { byClass, bySite, isDistance, mean, measured, titleOf, worstFirst, written, type Score } from "./scores";

/** The name of a case in the page's address. */
export function keyOf(of: Case): string {
    return `${of.site}/${of.id}`;
}

/** A case's name below its site's, without the site's in it. */
export function shortName({ site, id }: Case): string {
    const rest = id.startsWith(site) ? id.slice(site.length).replace(/^[\s._-]+/, "") : "";
    return rest || id;
}

export class CaseList {
    private readonly buttons = new Map<string, HTMLButtonElement>();
    private readonly folded = new Set<string>();
    private readonly table = el("table");
    private readonly none = el("p", { class: "hint", role: "status" });
    private readonly search = el("input", { type: "search", placeholder: "Search", "aria-label": "Search for cases" });
    private readonly sort = el("select", { "aria-label": "Score to sort by" });
    private run: Run | null = null;
    private own: string[] = [];
    private chosen = "";
    /** The case that the last press of Worst led to. */
    private reached = "";

    constructor(
        private readonly place: HTMLElement,
        private readonly onChoice: (key: string) => void,
        private readonly onScore: (score: Score) => void,
    ) {
        this.search.oninput = () => this.draw();
        this.sort.onchange = () => {
            this.reached = "";
            this.draw();
            this.onScore(this.score);
        };
    }

    /** What the list is sorted by and shows. */
    get score(): Score {
        return (this.sort.value || "dice") as Score;
    }

    /** Lists a run's cases, and the user's own scans above them. */
    show(run: Run, own: string[]): void {
        if (this.run !== run) {
            const options = measured(run).map((score) => el("option", { value: score }, titleOf(score)));
            this.sort.replaceChildren(...options);
            const worst = el("button", { type: "button", id: "worst", onclick: () => this.toWorst() }, "Worst");
            worst.title = "The worst case of those that are listed; pressed again, the next one";
            const tools = el("div", { class: "tools" }, this.search, this.sort, worst);
            this.place.replaceChildren(el("h2", {}, "Cases"), tools, this.table, this.none);
        }
        [this.run, this.own] = [run, own];
        this.draw();
    }

    private draw(): void {
        const { run, own, score } = this;
        if (!run) return;
        this.buttons.clear();
        const classes = run.classes.slice(1);
        const names = classes.map((name) => el("th", { scope: "col" }, name));
        const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Case"), ...names));
        const ownRows = own.map((name) => this.row(name, name, classes.map(() => null)));
        const mine = own.length ? [this.group("Your files", ownRows, classes.map(() => null))] : [];
        const found = this.found();
        const groups = bySite(found, score).map(([site, cases]) => {
            const scores = cases.map((one) => byClass(one, score, classes.length));
            const rows = cases.map((one, at) => this.row(keyOf(one), shortName(one), scores[at] ?? []));
            const means = classes.map((_, index) => mean(scores.map((of) => of[index] ?? null)));
            return this.group(site, rows, means);
        });
        const all = run.cases.length;
        const count = found.length === all ? `${all}` : `${found.length} of ${all}`;
        const caption = el("caption", {}, `${titleOf(score)} of ${count} cases, worst first`);
        this.table.replaceChildren(caption, head, ...mine, ...groups);
        this.none.textContent = found.length ? "" : `No case is called “${this.search.value}”.`;
        this.mark();
    }

    private found(): Case[] {
        const wanted = this.search.value.trim().toLowerCase();
        return (this.run?.cases ?? []).filter((one) => keyOf(one).toLowerCase().includes(wanted));
    }

    /** Marks the case that is shown. */
    select(key: string): void {
        this.chosen = key;
        const of = this.run?.cases.find((one) => keyOf(one) === key);
        if (of && this.folded.delete(of.site)) this.draw();
        this.mark();
        // On narrow screens the list is a part of the page, which is to stay where it is.
        const scrolls = this.place.scrollHeight > this.place.clientHeight;
        if (scrolls) this.buttons.get(key)?.scrollIntoView({ block: "nearest" });
    }

    private mark(): void {
        for (const [name, button] of this.buttons) {
            if (name === this.chosen) button.setAttribute("aria-current", "true");
            else button.removeAttribute("aria-current");
        }
    }

    /** To the case before or after the one that is shown, as they are listed. */
    step(by: number): void {
        const keys = [...this.buttons.keys()];
        const next = keys[keys.indexOf(this.chosen) + by];
        if (next) this.onChoice(next);
    }

    private toWorst(): void {
        const sorted = this.found().sort(worstFirst(this.score)).map(keyOf);
        const again = this.chosen === this.reached ? sorted.indexOf(this.chosen) + 1 : 0;
        this.reached = sorted[again % sorted.length] ?? "";
        if (this.reached) this.onChoice(this.reached);
    }

    private group(title: string, rows: HTMLElement[], means: (number | null)[]): HTMLElement {
        const folded = this.folded.has(title);
        const fold = el("button", { type: "button", "aria-expanded": String(!folded) }, title);
        fold.onclick = () => {
            if (!this.folded.delete(title)) this.folded.add(title);
            const now = this.folded.has(title);
            fold.setAttribute("aria-expanded", String(!now));
            rows.forEach((row) => (row.hidden = now));
        };
        rows.forEach((row) => (row.hidden = folded));
        const cells = means.map((value) => el("td", { title: "Mean" }, value === null ? "" : written(value, this.score)));
        const head = el("tr", { class: "site" }, el("th", { scope: "rowgroup" }, fold), ...cells);
        return el("tbody", {}, head, ...rows);
    }

    private row(key: string, title: string, scores: (number | null)[]): HTMLElement {
        const button = el("button", { type: "button", "data-case": key, onclick: () => this.onChoice(key) }, ...parts(title));
        this.buttons.set(key, button);
        const row = el("tr", {}, el("th", { scope: "row" }, button), ...scores.map((value) => cell(value, this.score)));
        // The button is what keyboards and screen readers use; the row is as large for a pointer.
        row.onclick = (event) => {
            if (!button.contains(event.target as Node)) this.onChoice(key);
        };
        return row;
    }
}

/** A name that may go on in another line between its parts, not within them. */
function parts(name: string): (string | Node)[] {
    return name.split(/(?<=[_.-])/).flatMap((part) => [part, el("wbr")]);
}

function cell(value: number | null, score: Score): HTMLElement {
    const text = el("span", {}, written(value, score));
    if (value === null || isDistance(score)) return el("td", {}, text);
    const bar = el("i", { class: "bar", style: `inline-size: ${(100 * value).toFixed(0)}%`, "aria-hidden": true });
    return el("td", {}, text, bar);
}
