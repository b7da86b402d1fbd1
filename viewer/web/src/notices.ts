/** Messages with a way on. */

import { byId, el } from "./dom";

export interface Action {
    label: string;
    act: () => void;
}

const log: string[] = [];

/** Every failure so far, for diagnostics. */
export function failures(): readonly string[] {
    return log;
}

/** Shows a failure until it is closed, acted on, or replaced by another of the same topic. */
export function warn(topic: string, message: string, actions: Action[] = []): void {
    log.push(`${new Date().toISOString()} ${topic}: ${message}`);
    clear(topic);
    const close = () => notice.remove();
    const buttons = actions.map(({ label, act }) => {
        const onclick = () => {
            close();
            act();
        };
        return el("button", { type: "button", onclick }, label);
    });
    const notice = el(
        "div",
        { class: "notice", role: "alert", "data-topic": topic },
        el("p", {}, message),
        ...buttons,
        el("button", { type: "button", class: "close", "aria-label": "Close this message", onclick: close }, "×"),
    );
    byId("notices").append(notice);
}

/** Takes away what was said on a topic. */
export function clear(topic: string): void {
    byId("notices").querySelectorAll(`[data-topic="${topic}"]`).forEach((old) => old.remove());
}

/** The sentence of whatever was thrown. */
export function sentence(error: unknown): string {
    return error instanceof Error ? error.message : String(error);
}
