/** What the page runs on, and what to tell when something goes wrong. */

import type { DeviceReport, SelfTest } from "../wasm/flapsam_viewer";
import { byId, el, size } from "./dom";
import type { Engine } from "./engine";
import { clear, failures, sentence, warn } from "./notices";
import type { Choice } from "./protocol";
import { remedies } from "./remedies";

const CHOICES: [Choice, string][] = [
    ["auto", "Automatic"],
    ["webgpu", "WebGPU"],
    ["cpu", "CPU"],
];

/** Features that matter to a network; diagnostics have all of them. */
const COMPUTE = /shader_|subgroup|timestamp/i;

export class DevicePanel {
    choice: Choice = "auto";
    private report: DeviceReport | null = null;
    private readonly facts = el("dl", { class: "facts" });
    private readonly tested = el("dl", { class: "facts" });
    private readonly why = el("p", { class: "why" }, "Not opened yet.");

    /** `about` gives what else belongs into diagnostics. */
    constructor(
        place: HTMLElement,
        private readonly engine: Engine,
        private readonly about: () => object,
    ) {
        const radios = CHOICES.map(([choice, title]) => {
            const radio = el("input", { type: "radio", name: "device", value: choice, checked: choice === "auto" });
            radio.onchange = () => {
                this.choice = choice;
                void this.open();
            };
            return el("label", {}, radio, el("span", {}, title));
        });
        const copy = el("button", { type: "button", id: "copy-diagnostics", onclick: () => void this.copy() });
        copy.textContent = "Copy diagnostics";
        const test = el("button", { type: "button", id: "test-device", onclick: () => void this.test() }, "Test this device");
        place.replaceChildren(
            el("fieldset", { class: "segments" }, el("legend", { class: "hidden" }, "Run on"), ...radios),
            this.why,
            this.facts,
            this.tested,
            el("div", { class: "row" }, test, copy),
        );
    }

    /** Opens what is chosen, to say what it is. */
    async open(): Promise<void> {
        try {
            await this.engine.open(this.choice);
            clear("device");
        } catch (error) {
            warn("device", sentence(error), remedies(error, () => void this.open()));
        }
    }

    /** Computes a network whose answer is known, and says how far the device's is from it. */
    private async test(): Promise<void> {
        const button = byId<HTMLButtonElement>("test-device");
        button.disabled = true;
        try {
            this.tested.replaceChildren(...fact("Self-test", verdict(await this.engine.test(this.choice))));
            clear("device");
        } catch (error) {
            warn("device", sentence(error), remedies(error, () => void this.test()));
        }
        button.disabled = false;
    }

    show(report: DeviceReport): void {
        this.report = report;
        const name = report.backend === "webgpu" ? "WebGPU" : "CPU (WebAssembly SIMD)";
        this.why.textContent = `${name}. ${report.why}`;
        const { adapter } = report;
        const words = adapter && [adapter.vendor, adapter.architecture, adapter.description].filter(Boolean).join(" ");
        const bytes = (value: number | null) => (value === null ? null : size(value));
        this.facts.replaceChildren(
            ...fact("Adapter", adapter ? `${words || "unnamed"}${report.software ? " (software)" : ""}` : "none"),
            ...fact("Largest storage binding", bytes(report.maxStorageBufferBindingSize)),
            ...fact("Largest buffer", bytes(report.maxBufferSize)),
            ...fact("Memory for a run", bytes(report.limits.host)),
            ...fact("Features", report.features.filter((name) => COMPUTE.test(name)).join(", ").toLowerCase() || null),
        );
        this.tested.replaceChildren(...fact("Self-test", report.selfTest && verdict(report.selfTest)));
        const chip = byId("chip");
        chip.hidden = false;
        chip.textContent = report.backend === "webgpu" ? `WebGPU${report.software ? " (software)" : ""}` : "CPU";
    }

    /** All that helps to find a fault, as text. */
    diagnostics(): string {
        const gl = document.createElement("canvas").getContext("webgl2");
        const facts = {
            page: location.href,
            browser: navigator.userAgent,
            threads: navigator.hardwareConcurrency,
            screen: `${innerWidth} x ${innerHeight} at ${devicePixelRatio}`,
            webgl: gl && String(gl.getParameter(gl.RENDERER)),
            webgpu: "gpu" in navigator,
            chosen: this.choice,
            device: this.report,
            ...this.about(),
            failures: failures(),
        };
        return JSON.stringify(facts, null, 2);
    }

    private async copy(): Promise<void> {
        const text = this.diagnostics();
        try {
            await navigator.clipboard.writeText(text);
            byId("copy-diagnostics").textContent = "Copied";
            setTimeout(() => (byId("copy-diagnostics").textContent = "Copy diagnostics"), 2000);
        } catch {
            const area = el("textarea", { readonly: true, rows: 10, "aria-label": "Diagnostics" });
            area.value = text;
            byId("copy-diagnostics").after(area);
            area.select();
            warn("clipboard", "The browser allows no access to the clipboard; the diagnostics are marked below the button.");
        }
    }
}

/** What a self-test found: how far the answer is from the known one, as shares of its norm. */
function verdict({ embedding, logits, mask, passed }: SelfTest): string {
    const off = (share: number | null) => (share === null ? "no number" : `${share.toExponential(0)} off`);
    const found = `embedding ${off(embedding)}, logits ${off(logits)}, ${(100 * mask).toFixed(2)} % of pixels of another class`;
    return `${passed ? "right" : "wrong"}: ${found}`;
}

function fact(name: string, value: string | null): HTMLElement[] {
    return value === null ? [] : [el("dt", {}, name), el("dd", {}, value)];
}
