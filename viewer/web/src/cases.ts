/** The list of cases: by site, worst first. */

import { el } from "./dom";
import { bySite, type Case, type Run } from "./run";

/** The name of a case in the page's address. */
export function keyOf(of: Case): string {
    return `${of.site}/${of.id}`;
}

export class CaseList {
    private readonly buttons = new Map<string, HTMLButtonElement>();

    constructor(
        private readonly place: HTMLElement,
        private readonly onChoice: (key: string) => void,
    ) {}

    /** Lists a run's cases, and the user's own scans above them. */
    show(run: Run, own: string[]): void {
        this.buttons.clear();
        const classes = run.classes.slice(1);
        const head = el(
            "thead",
            {},
            el("tr", {}, el("th", { scope: "col" }, "Case"), ...classes.map((name) => el("th", { scope: "col" }, name))),
        );
        const ownRows = own.map((name) => this.row(name, name, classes.map(() => null)));
        const groups = bySite(run).map(([site, cases]) => {
            const rows = cases.map((one) => this.row(keyOf(one), one.id, one.dice));
            return group(`Site ${site}`, rows, classes.length);
        });
        const mine = own.length ? [group("Your files", ownRows, classes.length)] : [];
        const caption = el("caption", {}, `Dice of ${run.cases.length} cases, worst first`);
        this.place.replaceChildren(el("h2", {}, "Cases"), el("table", {}, caption, head, ...mine, ...groups));
    }

    /** Marks the case that is shown. */
    select(key: string): void {
        for (const [name, button] of this.buttons) {
            if (name === key) button.setAttribute("aria-current", "true");
            else button.removeAttribute("aria-current");
        }
        // On narrow screens the list is a part of the page, which is to stay where it is.
        const scrolls = this.place.scrollHeight > this.place.clientHeight;
        if (scrolls) this.buttons.get(key)?.scrollIntoView({ block: "nearest" });
    }

    private row(key: string, title: string, dice: (number | null)[]): HTMLElement {
        const button = el("button", { type: "button", "data-case": key, onclick: () => this.onChoice(key) }, title);
        this.buttons.set(key, button);
        const row = el("tr", {}, el("th", { scope: "row" }, button), ...dice.map(cell));
        // The button is what keyboards and screen readers use; the row is as large for a pointer.
        row.onclick = (event) => {
            if (event.target !== button) this.onChoice(key);
        };
        return row;
    }
}

function group(title: string, rows: HTMLElement[], columns: number): HTMLElement {
    const head = el("tr", { class: "site" }, el("th", { scope: "rowgroup", colspan: columns + 1 }, title));
    return el("tbody", {}, head, ...rows);
}

function cell(dice: number | null): HTMLElement {
    if (dice === null) return el("td", {}, "–");
    const bar = el("i", { class: "bar", style: `inline-size: ${(100 * dice).toFixed(0)}%`, "aria-hidden": true });
    return el("td", {}, el("span", {}, dice.toFixed(3)), bar);
}
