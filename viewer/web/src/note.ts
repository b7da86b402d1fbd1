/** Saving a corrected mask for training, with a note of where it is from. */

import type { Corrected } from "./correcting";
import type { Start } from "./corrections";
import type { Current } from "./current";
import { save } from "./dom";
import { adapterOf } from "./run";
import { fileName, type Shown } from "./shown";
import type { Note } from "./training";

/** Offers the mask, its scan and the note in a zip. */
export async function saveForTraining(current: Current, corrected: Corrected): Promise<void> {
    const { shown } = current;
    if (!shown || shown.key !== corrected.subject.key) return;
    const note = noteOf(current, shown, corrected);
    const { trainingZip } = await import("./training");
    const zip = await trainingZip(note, corrected.subject.scan.bytes, corrected.mask);
    save(zip, `${fileName(`${note.site}_${note.case}`)}_training.zip`, "application/zip");
}

function noteOf({ run, classes }: Current, shown: Shown, { beganWith, changedBy, name }: Corrected): Note {
    const adapters: Record<Start, string | null> = {
        native: shown.native && adapterOf(run, shown.site).sha256,
        browser: shown.adapterSha256,
        truth: null,
        empty: null,
    };
    return {
        site: shown.site ?? "own",
        case: shown.site ? shown.key.slice(shown.site.length + 1) : fileName(shown.key),
        madeBy: name,
        date: new Date().toISOString(),
        beganWith,
        changedBy,
        model: { run: run.name, program: run.program, baseSha256: run.base.sha256, adapterSha256: adapters[beganWith] },
        classes,
    };
}
