/** What the page's parts share: the run, what is shown of it, and by which adapter it is segmented. */

import type { OwnFile } from "./files";
import type { Run } from "./run";
import type { Shown } from "./shown";

export class Current {
    shown: Shown | null = null;
    /** The user's scans by their names. */
    readonly own = new Map<string, OwnFile>();
    /** The user's, in place of the run's. */
    adapter: OwnFile | null = null;
    /** The site whose intensities a scan of the user's has. */
    site: string | undefined;
    private names: string[];

    /** `onClasses` hears the names of the labels, background first, whenever they are others. */
    constructor(
        readonly run: Run,
        private readonly onClasses: (classes: string[]) => void,
    ) {
        this.site = run.sites[0];
        this.names = run.classes;
    }

    get classes(): string[] {
        return this.names;
    }

    set classes(classes: string[]) {
        this.names = classes;
        this.onClasses(classes);
    }
}
