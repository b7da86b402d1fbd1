/** Keeps the page, so that it opens without a network, and what was seen of its run. Built as sw.js beside index.html. */

declare const self: ServiceWorkerGlobalScope;
/** Put in by the build: the page's own files, and a checksum of them all. */
declare const __PAGE__: { version: string; files: string[] };

const { scope } = self.registration;
const PAGE = `flapsam ${scope} page ${__PAGE__.version}`;
const RUN = `flapsam ${scope} run`;
const OWN = new Set(__PAGE__.files.map((file) => new URL(file, scope).href));
const INDEX = new URL("index.html", scope).href;
const RUN_JSON = new URL("run.json", scope).href;
/** Larger weights are kept by the page itself, under their checksums. */
const WEIGHTS_BELOW = 1_000_000;

self.addEventListener("install", (event) => event.waitUntil(keepPage()));
self.addEventListener("activate", (event) => event.waitUntil(takeOver()));
self.addEventListener("fetch", (event) => {
    const { method, url, mode } = event.request;
    const address = url.replace(/[?#].*$/, "");
    if (method !== "GET" || !address.startsWith(scope)) return;
    if (mode === "navigate" || address === INDEX) event.respondWith(newestPage(event.request));
    else if (OWN.has(address)) event.respondWith(own(event.request));
    else event.respondWith(ofRun(event.request));
});

async function keepPage(): Promise<void> {
    await (await caches.open(PAGE)).addAll([...OWN]);
    // Without it the page does not start. It was fetched before this worker was there.
    await (await caches.open(RUN)).add(RUN_JSON);
}

async function takeOver(): Promise<void> {
    const names = await caches.keys();
    const old = names.filter((name) => name.startsWith(`flapsam ${scope} page `) && name !== PAGE);
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
}

/** The names of the page's files hold checksums: what is kept is what would be fetched. */
async function own(request: Request): Promise<Response> {
    return (await caches.match(request.url, { cacheName: PAGE })) ?? fetch(request);
}

/** Another build has other files, which only its own index.html names. */
async function newestPage(request: Request): Promise<Response> {
    return fetch(request).catch(async () => (await caches.match(INDEX, { cacheName: PAGE })) ?? Response.error());
}

async function ofRun(request: Request): Promise<Response> {
    try {
        const answer = await fetch(request);
        if (answer.ok && !isLarge(answer)) await keep(request.url, answer.clone());
        return answer;
    } catch {
        return (await caches.match(request.url, { cacheName: RUN })) ?? Response.error();
    }
}

function isLarge(answer: Response): boolean {
    return answer.url.endsWith(".safetensors") && Number(answer.headers.get("Content-Length")) >= WEIGHTS_BELOW;
}

async function keep(url: string, answer: Response): Promise<void> {
    // The user had it deleted.
    if (!(await caches.has(PAGE))) return;
    if (url === RUN_JSON && (await isAnotherRun(answer.clone()))) await caches.delete(RUN);
    await (await caches.open(RUN)).put(url, answer);
}

/** Another run's files have the same addresses. */
async function isAnotherRun(answer: Response): Promise<boolean> {
    const kept = await caches.match(RUN_JSON, { cacheName: RUN });
    return kept !== undefined && (await kept.text()) !== (await answer.text());
}

export {};
