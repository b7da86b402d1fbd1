/** How a run's cases are judged: by which score, and which of two is worse. */

import type { Case, Run } from "./run";

export const SCORES = ["dice", "surface", "hausdorff"] as const;
export type Score = (typeof SCORES)[number];

interface About {
    title: string;
    /** By foreground class; null where there is none, such as a distance to a surface that is not there. */
    of: (one: Case) => (number | null)[];
    /** A share is better the larger it is, a distance the smaller. */
    distance: boolean;
    digits: number;
}

const ABOUT: Record<Score, About> = {
    dice: { title: "Dice", of: (one) => one.dice, distance: false, digits: 3 },
    surface: { title: "Surface Dice", of: (one) => one.surfaceDice, distance: false, digits: 3 },
    hausdorff: { title: "HD95, mm", of: (one) => one.hausdorff95Mm, distance: true, digits: 1 },
};

export function titleOf(score: Score): string {
    return ABOUT[score].title;
}

export function isDistance(score: Score): boolean {
    return ABOUT[score].distance;
}

/** A case's scores by foreground class; null for what was not measured. */
export function byClass(one: Case, score: Score, classes: number): (number | null)[] {
    const scores = ABOUT[score].of(one);
    return Array.from({ length: classes }, (_, index) => scores[index] ?? null);
}

export function written(value: number | null, score: Score): string {
    return value === null ? "–" : value.toFixed(ABOUT[score].digits);
}

/** The scores that a run has; every run has Dice. */
export function measured(run: Run): Score[] {
    return SCORES.filter((score) => run.cases.some((one) => ABOUT[score].of(one).length > 0));
}

export function mean(values: (number | null)[]): number | null {
    const there = values.filter((value) => value !== null);
    return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}

/** Worst first; where a distance is missing, a mask or its truth is empty: worse than any that is there. */
export function worstFirst(score: Score): (one: Case, other: Case) => number {
    const { of, distance } = ABOUT[score];
    const badness = (one: Case) => {
        const value = mean(of(one));
        if (value === null) return Infinity;
        return distance ? value : -value;
    };
    return (one, other) => {
        const [here, there] = [badness(one), badness(other)];
        return here === there ? 0 : there - here;
    };
}

/** Sites in order of their names, each with its cases, worst first. */
export function bySite(cases: Case[], score: Score): [string, Case[]][] {
    const sites = new Map<string, Case[]>();
    for (const one of cases) sites.set(one.site, [...(sites.get(one.site) ?? []), one]);
    const sorted = [...sites].sort(([one], [other]) => one.localeCompare(other));
    return sorted.map(([site, own]) => [site, own.sort(worstFirst(score))]);
}
