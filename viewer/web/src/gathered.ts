/** The files of a drop: those of its folders too, however deep. */

/** Must be called while the drop is handled; later its entries are gone. */
export async function dropped(transfer: DataTransfer): Promise<File[]> {
    const items = [...transfer.items].filter((item) => item.kind === "file");
    // A file that lies on no disk has no entry.
    const found = items.map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
    return (await Promise.all(found.map((one) => (one instanceof File ? [one] : below(one))))).flat();
}

async function below(entry: FileSystemEntry | null): Promise<File[]> {
    if (entry?.isFile) return [await new Promise<File>((done, failed) => (entry as FileSystemFileEntry).file(done, failed))];
    if (!entry?.isDirectory) return [];
    const entries = await entriesOf((entry as FileSystemDirectoryEntry).createReader());
    return (await Promise.all(entries.map(below))).flat();
}

/** A reader gives a folder's entries in portions, and an empty one at the end. */
async function entriesOf(reader: FileSystemDirectoryReader): Promise<FileSystemEntry[]> {
    const portion = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed));
    return portion.length ? [...portion, ...(await entriesOf(reader))] : [];
}
