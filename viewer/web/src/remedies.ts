/** What the user can do about a failure of the engine. */

import { byId } from "./dom";
import { EngineError } from "./engine";
import type { Action } from "./notices";

export function remedies(error: unknown, retry: () => void): Action[] {
    const again = { label: "Try again", act: retry };
    const onCpu = {
        label: "Use the CPU",
        act: () => byId("device").querySelector<HTMLInputElement>("[value=cpu]")?.click(),
    };
    switch (error instanceof EngineError ? error.kind : "") {
        case "device":
        case "limit":
            return [onCpu];
        case "crash":
            return [again, onCpu];
        case "checksum":
        case "fetch":
            return [again];
        default:
            return [];
    }
}
