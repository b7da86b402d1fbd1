/** Puts the page's parts together. */

import * as address from "./address";
import { Asking } from "./asking";
import { Beside } from "./beside";
import { Choosing } from "./choosing";
import { Correcting } from "./correcting";
import { Current } from "./current";
import { DevicePanel } from "./device";
import { byId, el, save } from "./dom";
import { Engine } from "./engine";
import { KeptPanel } from "./kept";
import { Legend } from "./layers";
import { closeMenus } from "./menus";
import { saveForTraining } from "./note";
import { sentence, warn } from "./notices";
import { Overlays } from "./overlays";
import type { Outcome } from "./protocol";
import { fetchRun, type Run } from "./run";
import { Segmenting } from "./segmenting";
import { fileName } from "./shown";
import { Stage } from "./stage";
import { Tools } from "./tools";

async function start(run: Run): Promise<void> {
    byId("run-title").textContent = `${run.title} · seed ${run.seed}`;
    byId("run-title").title = run.dataDescription;
    document.title = `${run.name} · flapsam viewer`;

    const current = new Current(run, (classes) => {
        legend.setClasses(classes);
        stage.classes = classes;
        correcting.setClasses(classes);
        asking.setClasses(classes);
    });
    const engine = new Engine((report) => device.show(report));
    const device = new DevicePanel(byId("device"), engine, () => {
        const { shown } = current;
        return { run: run.name, case: shown?.title ?? null, last: shown?.outcome ? summary(shown.outcome) : null };
    });
    const stage = new Stage(
        (view) => address.change({ view }),
        (...stroke) => correcting.stroke(...stroke),
    );
    const legend = new Legend(byId("layers"), (name) => void overlays.restyle(name));
    const overlays = new Overlays(current, engine, stage, legend);
    const correcting = new Correcting(
        stage,
        engine,
        (mask, key) => save(mask, `${fileName(key.replace("/", "_"))}_corrected.nii.gz`, "application/gzip"),
        (corrected) => saveForTraining(current, corrected),
    );
    const beside = new Beside(current, engine, stage, legend);
    const kept = new KeptPanel(byId("kept"));
    const segmenting = new Segmenting(current, engine, device, overlays, legend, correcting, beside, kept);
    const asking = new Asking(current, engine, stage, device, correcting);
    const choosing = new Choosing(current, { stage, legend, overlays, correcting, segmenting, asking, beside, kept });
    new Tools(current, stage, overlays, legend, choosing);

    closeMenus();
    current.classes = run.classes;
    await stage.open(address.read().view, () => overlays.redraw());
    void device.open();
    void kept.start();
    await choosing.start();
}

/** What diagnostics say of a segmentation. */
function summary({ slices, milliseconds, classes, network, device }: Outcome): object {
    return { slices, milliseconds, classes, network, backend: device.backend };
}

try {
    await start(await fetchRun());
} catch (error) {
    byId("run-title").textContent = "No run";
    warn("page", `The page cannot start: ${sentence(error)}`, [{ label: "Reload", act: () => location.reload() }]);
    byId("cases").replaceChildren(el("h2", {}, "Cases"), el("p", {}, "None."));
}
