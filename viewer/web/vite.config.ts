import { defineConfig, type Plugin } from "vite";

/** Tells the service worker which files are the page's own, and gives it a name that stays. */
function serviceWorker(): Plugin {
    return {
        name: "service-worker",
        enforce: "post",
        generateBundle: {
            order: "post",
            async handler(_, bundle) {
                const worker = bundle["sw.js"];
                if (worker?.type !== "chunk") throw new Error("the build has no sw.js");
                const own = Object.values(bundle).filter((file) => file !== worker);
                const contents = own.map((file) => new Blob([file.type === "chunk" ? file.code : (file.source as BlobPart)]));
                const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(contents).arrayBuffer()));
                const version = [...hash.slice(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
                const page = { version, files: own.map(({ fileName }) => fileName) };
                worker.code = worker.code.replaceAll("__PAGE__", JSON.stringify(page));
            },
        },
    };
}

export default defineConfig({
    // Relative, so that an exported folder works at any address.
    base: "./",
    worker: { format: "es" },
    plugins: [serviceWorker()],
    build: {
        target: "es2022",
        // The content security policy allows no data: scripts.
        assetsInlineLimit: 0,
        // NiiVue and its decoders are one large piece.
        chunkSizeWarningLimit: 4000,
        rollupOptions: {
            input: { index: "index.html", sw: "src/serviceworker.ts" },
            output: { entryFileNames: ({ name }) => (name === "sw" ? "sw.js" : "assets/[name]-[hash].js") },
        },
    },
});
