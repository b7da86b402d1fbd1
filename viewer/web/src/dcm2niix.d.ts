/** What is used of the package, which has no types of its own. */
declare module "@niivue/dcm2niix" {
    class Dcm2niix {
        /** Null until `init`. */
        worker: Worker | null;
        init(): Promise<true>;
        input(files: File[]): Conversion;
    }

    /** Options of the command line of the same letters. */
    interface Conversion {
        b(sidecar: "y" | "n"): Conversion;
        f(name: string): Conversion;
        z(packed: "y" | "n"): Conversion;
        run(): Promise<File[]>;
    }
}
