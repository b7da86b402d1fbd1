import { defineConfig } from "vite";

export default defineConfig({
    // Relative, so that an exported folder works at any address.
    base: "./",
    worker: { format: "es" },
    build: {
        target: "es2022",
        // The content security policy allows no data: scripts.
        assetsInlineLimit: 0,
        // NiiVue and its decoders are one large piece.
        chunkSizeWarningLimit: 4000,
    },
});
