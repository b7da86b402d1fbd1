/** The page's state in its address, so that a finding can be sent as a link. */

export const VIEWS = ["planes", "axial", "coronal", "sagittal", "3d"] as const;
export type View = (typeof VIEWS)[number];

export interface State {
    /** The run's name. */
    run: string | null;
    /** `site/case`. */
    case: string | null;
    view: View;
}

export function read(): State {
    const query = new URLSearchParams(location.search);
    const view = query.get("view");
    return {
        run: query.get("run"),
        case: query.get("case"),
        view: VIEWS.find((known) => known === view) ?? "planes",
    };
}

/** Writes what is another now; a new case is a step that the back button undoes. */
export function change(change: Partial<State>): void {
    const before = read();
    const state = { ...before, ...change };
    const query = new URLSearchParams();
    if (state.run) query.set("run", state.run);
    if (state.case) query.set("case", state.case);
    if (state.view !== "planes") query.set("view", state.view);
    const address = `?${query.toString().replaceAll("%2F", "/")}`;
    if (address === location.search) return;
    const step = state.case !== before.case && before.case !== null;
    history[step ? "pushState" : "replaceState"](null, "", address);
}
