//! The bindings to JavaScript, for the page's worker.

use std::cell::RefCell;

use flapsam_model::adapter::AdapterMetadata;
use flapsam_model::burn::tensor::Device;
use flapsam_model::burn::tensor::wgpu::WgpuSetup;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::prompts::{Prompt, Seen, Slice};
use flapsam_model::self_test::{LARGEST_TENSOR, SelfTest};
use flapsam_model::volume::{Plane, restated};
use js_sys::{Float32Array, Function, JSON, Promise, Reflect, Uint8Array};
use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::Error;
use crate::comparison;
use crate::correcting;
use crate::device::{Adapter, Backend, Choice, Limits, Report, decide};
use crate::network::Network;
use crate::promised::Promised;
use crate::prompting::{self, Prompting};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** What WebGPU says of its adapter; words may be empty. */
export interface AdapterInfo { vendor: string; architecture: string; description: string; fallback: boolean }

/** What the network runs on, and why. Sizes in bytes. */
export interface DeviceReport {
    backend: "webgpu" | "cpu";
    adapter: AdapterInfo | null;
    software: boolean;
    why: string;
    limits: { largestTensor: number | null; host: number };
    maxStorageBufferBindingSize: number | null;
    maxBufferSize: number | null;
    features: string[];
    /** What WebGPU answered on a network whose answer is known; null where it was not asked. */
    selfTest: SelfTest | null;
}

/** How far a device's answer is from the known one, as shares of its norm; mask: the share of pixels of another class. */
export interface SelfTest { embedding: number | null; logits: number | null; mask: number; passed: boolean }

/** What a loaded adapter is. */
export interface NetworkReport {
    method: string;
    imageSize: number;
    classes: string[];
    sites: string[];
    baseSha256: string;
    resample: [number, number, number] | null;
    spacingMm: [number, number, number] | null;
}

/** How much of a scan is of a class. */
export interface Found { class: string; voxels: number; millilitres: number }

/** A segmented scan; masks are gzipped NIfTI. */
export interface Segmented {
    classes: Found[];
    /** On the scan's own grid, with its header. */
    mask: Uint8Array;
    /** On the grid that the network worked on, if that is another. */
    gridMask: Uint8Array | null;
}

/** Two label maps, voxel by voxel. */
export interface Comparison {
    dice: number[];
    equal: number;
    voxels: number;
    /** Where the worst axial slice is, mm. */
    worst: [number, number, number] | null;
    /** Gzipped NIfTI, 1 where they differ. */
    difference: Uint8Array;
}

/** Along which a slice lies. */
export type Plane = "axial" | "coronal" | "sagittal";

/** A slice, row-major, as the images show it; spacing in mm. */
export interface Slice {
    plane: Plane;
    values: Float32Array;
    pixels: [number, number];
    spacing: [number, number];
    /** Its number from the feet, the back or the patient's left, from 1, of how many. */
    number: number;
    of: number;
}

/** A click on a slice, in pixels; whole numbers are their centres. */
export interface Click { x: number; y: number; positive: boolean }

/** What a user says of an object on a slice; a box's corners are x, y, x, y. */
export interface Prompt { clicks: Click[]; box: [number, number, number, number] | null }

/** Three masks of a prompt, each of a slice's pixels, and the network's guess of how good they are. */
export interface Masks {
    masks: Uint8Array;
    scores: number[];
    /** Whether the slice was encoded for an earlier prompt. */
    kept: boolean;
}

/** Told how much is done, and of how much; false stops the work. */
export type OnProgress = (done: number, of: number) => boolean | Promise<boolean>;
"#;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(typescript_type = "DeviceReport")]
    pub type DeviceReport;
    #[wasm_bindgen(typescript_type = "NetworkReport")]
    pub type NetworkReport;
    #[wasm_bindgen(typescript_type = "Segmented | null")]
    pub type Segmented;
    #[wasm_bindgen(typescript_type = "Comparison")]
    pub type Comparison;
    #[wasm_bindgen(typescript_type = "OnProgress")]
    pub type OnProgress;
    #[wasm_bindgen(typescript_type = "Plane")]
    pub type PlaneName;
    #[wasm_bindgen(typescript_type = "Slice")]
    pub type SliceView;
    #[wasm_bindgen(typescript_type = "Prompt")]
    pub type PromptView;
    #[wasm_bindgen(typescript_type = "Masks | null")]
    pub type MasksView;
    #[wasm_bindgen(typescript_type = "SelfTest")]
    pub type SelfTestView;
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn log_error(message: &str);
}

thread_local! {
    /// The WebGPU device: opened once, it lives as long as the worker.
    static WEBGPU: RefCell<Option<(Device, Report)>> = const { RefCell::new(None) };
    /// What the last panic said. The worker is of no use after one, but can still tell.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

unsafe extern "C" {
    /// The linker's: it runs what dependencies registered before `main`.
    fn __wasm_call_ctors();
}

/// Prepares the module, and keeps the message of a panic, which WebAssembly alone would swallow.
#[wasm_bindgen(start)]
pub fn start() {
    // SAFETY: once, and before anything else. Without this call the linker would put one in front of every exported
    // function: thousands of constructors, run for every allocation.
    unsafe { __wasm_call_ctors() };
    std::panic::set_hook(Box::new(|info| {
        log_error(&info.to_string());
        PANIC.with(|panic| *panic.borrow_mut() = info.to_string());
    }));
}

/// What the last panic said; empty if there was none.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> String {
    PANIC.with(|panic| panic.borrow().clone())
}

/// Compares two NIfTI label maps. `resample` or `spacing_mm` is the grid that a run's masks are on, if it is not the scans'
/// own.
#[wasm_bindgen]
pub fn compare(
    one: &[u8],
    other: &[u8],
    classes: usize,
    resample: Option<Vec<u32>>,
    spacing_mm: Option<Vec<f64>>,
) -> Result<Comparison, JsValue> {
    let grid = resample.and_then(|grid| <[u32; 3]>::try_from(grid).ok());
    let preprocessing = Preprocessing {
        resample: grid.map(|grid| grid.map(|side| side as usize)),
        spacing_mm: spacing_mm.and_then(|spacing| spacing.try_into().ok()),
        ..Preprocessing::default()
    };
    let failed = |why| to_js(Error::content("the run's preprocessing")(why));
    preprocessing.check().map_err(failed)?;
    let found = comparison::compare(one, other, classes, &preprocessing).map_err(to_js)?;
    let object = plain(&found)?;
    set(&object, "difference", &Uint8Array::from(&found.difference[..]))?;
    Ok(object.unchecked_into())
}

/// A NIfTI file as the engine reads it, for whoever draws it: plain, and of space nothing but the affine, in millimetres.
#[wasm_bindgen(js_name = restated)]
pub fn restate(file: &[u8]) -> Result<Uint8Array, JsValue> {
    let failed = |why| to_js(Error::content("the file")(why));
    Ok(Uint8Array::from(&restated(file).map_err(failed)?[..]))
}

/// A scan's slice of a plane at a place, mm.
#[wasm_bindgen]
pub fn slice(
    scan: &[u8],
    scan_sha256: Option<String>,
    plane: PlaneName,
    x: f64,
    y: f64,
    z: f64,
) -> Result<SliceView, JsValue> {
    let scan = Promised {
        bytes: scan,
        sha256: scan_sha256.as_deref(),
    };
    let plane = read_plane(&plane)?;
    slice_view(&prompting::slice(scan, plane, [x, y, z], Limits::CPU).map_err(to_js)?)
}

fn read_plane(name: &PlaneName) -> Result<Plane, JsValue> {
    let name = name.as_string().unwrap_or_default();
    name.parse()
        .map_err(|why| wrong(&format!("'{name}' is no plane: {why}")))
}

fn slice_view(slice: &Slice) -> Result<SliceView, JsValue> {
    let object = plain(slice)?;
    set(&object, "values", &Float32Array::from(&slice.values[..]))?;
    Ok(object.unchecked_into())
}

/// A scan's slice of a plane and a number, from 1, from the feet, the back or the patient's left.
#[wasm_bindgen(js_name = sliceNumbered)]
pub fn slice_numbered(
    scan: &[u8],
    scan_sha256: Option<String>,
    plane: PlaneName,
    number: usize,
) -> Result<SliceView, JsValue> {
    let scan = Promised {
        bytes: scan,
        sha256: scan_sha256.as_deref(),
    };
    let plane = read_plane(&plane)?;
    slice_view(&prompting::slice_numbered(scan, plane, number, Limits::CPU).map_err(to_js)?)
}

/// A mask as it is drawn, as a file that belongs to its scan.
#[wasm_bindgen]
pub fn corrected(scan: &[u8], drawn: &[u8], classes: usize) -> Result<Uint8Array, JsValue> {
    let scan = Promised {
        bytes: scan,
        sha256: None,
    };
    let found = correcting::corrected(scan, drawn, classes, Limits::CPU).map_err(to_js)?;
    Ok(Uint8Array::from(&found[..]))
}

/// A mask with the answer about a slice in it, as one label.
#[wasm_bindgen]
pub fn kept(
    scan: &[u8],
    drawn: Option<Vec<u8>>,
    plane: PlaneName,
    number: usize,
    inside: &[u8],
    label: u8,
    classes: usize,
) -> Result<Uint8Array, JsValue> {
    let scan = Promised {
        bytes: scan,
        sha256: None,
    };
    let (answer, of) = ((read_plane(&plane)?, number, inside), (label, classes));
    let found = correcting::kept(scan, drawn.as_deref(), answer, of, Limits::CPU).map_err(to_js)?;
    Ok(Uint8Array::from(&found[..]))
}

/// A device, and the network on it: an adapted one that segments, or a base that is asked.
#[wasm_bindgen]
pub struct Engine {
    device: Device,
    report: Report,
    network: Option<Network>,
    prompting: Option<Prompting>,
}

#[wasm_bindgen]
impl Engine {
    /// Opens `auto`, `webgpu` or `cpu`. WebGPU is opened once; later calls take the same device.
    pub async fn open(choice: String) -> Result<Engine, JsValue> {
        open(&choice).await.map_err(to_js)
    }

    /// What it runs on.
    #[wasm_bindgen(getter)]
    pub fn device(&self) -> Result<DeviceReport, JsValue> {
        Ok(plain(&self.report)?.unchecked_into())
    }

    /// Computes a network whose answer is known, on the device that is open.
    #[wasm_bindgen(js_name = selfTest)]
    pub async fn self_test(&self) -> Result<SelfTestView, JsValue> {
        let found = SelfTest::run(&self.device)
            .await
            .map_err(|why| to_js(Error::content("the self-test")(why)))?;
        Ok(plain(&found)?.unchecked_into())
    }

    /// Checks a base and its adapter and puts the network on the device. Without a sha256 a file is taken as it is.
    pub fn load(
        &mut self,
        base: &[u8],
        base_sha256: Option<String>,
        adapter: &[u8],
        adapter_sha256: Option<String>,
    ) -> Result<NetworkReport, JsValue> {
        self.unload();
        let promised = |bytes, sha256| Promised { bytes, sha256 };
        let base = promised(base, base_sha256.as_deref());
        let adapter = promised(adapter, adapter_sha256.as_deref());
        let network = Network::load(base, adapter, &self.device).map_err(to_js)?;
        let report = plain(&Summary::of(&network.metadata))?.unchecked_into();
        self.network = Some(network);
        Ok(report)
    }

    /// Segments a NIfTI scan; null if `progress` stopped it.
    pub async fn segment(
        &self,
        scan: Vec<u8>,
        scan_sha256: Option<String>,
        site: Option<String>,
        progress: OnProgress,
    ) -> Result<Segmented, JsValue> {
        let network = self
            .network
            .as_ref()
            .ok_or_else(|| to_js(Error::Request("load a network first".into())))?;
        let scan = Promised {
            bytes: &scan,
            sha256: scan_sha256.as_deref(),
        };
        let told: Function = progress.unchecked_into();
        let told = async |done, of| tell(&told, done, of).await;
        let found = network.segment(scan, site.as_deref(), self.report.limits, told).await;
        let Some(found) = found.map_err(to_js)? else {
            return Ok(JsValue::NULL.unchecked_into());
        };
        let object = plain(&found)?;
        set(&object, "mask", &Uint8Array::from(&found.mask[..]))?;
        let grid_mask = found.grid_mask.map(|mask| Uint8Array::from(&mask[..]).into());
        set(&object, "gridMask", &grid_mask.unwrap_or(JsValue::NULL))?;
        Ok(object.unchecked_into())
    }

    /// Checks a base and puts it on the device without an adapter, to be asked.
    #[wasm_bindgen(js_name = loadBase)]
    pub fn load_base(&mut self, base: &[u8], base_sha256: Option<String>) -> Result<(), JsValue> {
        self.unload();
        let base = Promised {
            bytes: base,
            sha256: base_sha256.as_deref(),
        };
        self.prompting = Some(Prompting::load(base, &self.device).map_err(to_js)?);
        Ok(())
    }

    /// What a prompt means on a slice, seen through a window from `black` to `white`; null if `progress`, told how much of
    /// the slice is encoded, stopped it.
    pub async fn ask(
        &mut self,
        values: Vec<f32>,
        pixels: Vec<usize>,
        window: Vec<f32>,
        prompt: PromptView,
        progress: OnProgress,
    ) -> Result<MasksView, JsValue> {
        let text = JSON::stringify(&prompt)?.as_string().unwrap_or_default();
        let prompt: Prompt = serde_json::from_str(&text).map_err(|why| wrong(&why.to_string()))?;
        let (seen, limits) = (seen(&values, &pixels, &window)?, self.report.limits);
        let told: Function = progress.unchecked_into();
        let told = async |done, of| tell(&told, done, of).await;
        let found = self.asked()?.ask(seen, &prompt, limits, told).await;
        let Some(found) = found.map_err(to_js)? else {
            return Ok(JsValue::NULL.unchecked_into());
        };
        let object = plain(&found)?;
        set(&object, "masks", &Uint8Array::from(&found.masks[..]))?;
        Ok(object.unchecked_into())
    }

    /// Encodes a slice before anybody asks about it; false if `progress` stopped it.
    pub async fn encode(
        &mut self,
        values: Vec<f32>,
        pixels: Vec<usize>,
        window: Vec<f32>,
        progress: OnProgress,
    ) -> Result<bool, JsValue> {
        let (seen, limits) = (seen(&values, &pixels, &window)?, self.report.limits);
        let told: Function = progress.unchecked_into();
        let told = async |done, of| tell(&told, done, of).await;
        let found = self.asked()?.encode(seen, limits, told).await;
        Ok(found.map_err(to_js)?.is_some())
    }
}

impl Engine {
    fn asked(&mut self) -> Result<&mut Prompting, JsValue> {
        self.prompting.as_mut().ok_or_else(|| wrong("load a base first"))
    }

    /// Frees the old network's memory before a new one takes its own.
    fn unload(&mut self) {
        self.network = None;
        self.prompting = None;
    }
}

fn wrong(what: &str) -> JsValue {
    to_js(Error::Request(what.into()))
}

fn seen<'a>(values: &'a [f32], pixels: &[usize], window: &[f32]) -> Result<Seen<'a>, JsValue> {
    Ok(Seen {
        values,
        pixels: pixels.try_into().map_err(|_| wrong("a slice has rows and columns"))?,
        window: window
            .try_into()
            .map_err(|_| wrong("a window goes from black to white"))?,
    })
}

/// A [`NetworkReport`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    method: &'a str,
    image_size: usize,
    classes: &'a [String],
    sites: Vec<&'a str>,
    base_sha256: &'a str,
    resample: Option<[usize; 3]>,
    spacing_mm: Option<[f64; 3]>,
}

impl<'a> Summary<'a> {
    fn of(metadata: &'a AdapterMetadata) -> Self {
        let preprocessing = &metadata.preprocessing;
        Self {
            method: metadata.method.name(),
            image_size: metadata.sam.image_size,
            classes: &metadata.classes,
            sites: preprocessing.sites.keys().map(String::as_str).collect(),
            base_sha256: &metadata.base_sha256,
            resample: preprocessing.resample,
            spacing_mm: preprocessing.spacing_mm,
        }
    }
}

async fn open(choice: &str) -> Result<Engine, Error> {
    let choice = Choice::named(choice)?;
    let adapter = adapter().await;
    let (backend, why) = decide(choice, adapter.as_ref())?;
    let (device, report) = match backend {
        Backend::Cpu => (Device::flex(), cpu_report(adapter, why)),
        Backend::WebGpu => match WEBGPU.with(|opened| opened.borrow().clone()) {
            Some((device, report)) => (device, Report { why, ..report }),
            None => match (open_webgpu(adapter.clone(), why).await, choice) {
                (Ok(opened), _) => tested(opened).await,
                (Err(why), Choice::Auto) => (Device::flex(), cpu_report(adapter, format!("{why}."))),
                (Err(why), _) => return Err(why),
            },
        },
    };
    Ok(Engine {
        device,
        report,
        network: None,
        prompting: None,
    })
}

/// A WebGPU device that answers the self-test as it should, for this worker's whole life; otherwise the CPU. One that could
/// not hold even the test is not asked: it can hold no network either, and is refused with the network's size.
async fn tested((device, report): (Device, Report)) -> (Device, Report) {
    let found = match report.limits.allow(LARGEST_TENSOR) {
        true => Some(SelfTest::run(&device).await),
        false => None,
    };
    let (self_test, wrong) = match found {
        None => (None, None),
        Some(Ok(found)) if found.passed => (Some(found), None),
        Some(Ok(found)) => (Some(found), Some(found.describe())),
        Some(Err(why)) => (None, Some(why.to_string())),
    };
    let Some(wrong) = wrong else {
        let opened = (device, Report { self_test, ..report });
        WEBGPU.with(|place| *place.borrow_mut() = Some(opened.clone()));
        return opened;
    };
    let name = report.adapter.as_ref().map_or_else(String::new, Adapter::name);
    let why = format!(
        "WebGPU on {name} computes wrongly (on a network whose answer is known, {wrong}), so the CPU is taken."
    );
    (
        Device::flex(),
        Report {
            self_test,
            ..cpu_report(report.adapter, why)
        },
    )
}

fn cpu_report(adapter: Option<Adapter>, why: String) -> Report {
    Report {
        backend: Backend::Cpu,
        software: adapter.as_ref().is_some_and(Adapter::is_software),
        adapter,
        why,
        limits: Limits::CPU,
        max_storage_buffer_binding_size: None,
        max_buffer_size: None,
        features: Vec::new(),
        self_test: None,
    }
}

async fn open_webgpu(adapter: Option<Adapter>, why: String) -> Result<(Device, Report), Error> {
    let opened = Device::wgpu_options().init_with_setup_async().await;
    let (device, setup): (Device, WgpuSetup) =
        opened.map_err(|why| Error::Device(format!("WebGPU cannot be opened here ({why})")))?;
    let limits = setup.device.limits();
    let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    let report = Report {
        backend: Backend::WebGpu,
        max_storage_buffer_binding_size: Some(limits.max_storage_buffer_binding_size),
        max_buffer_size: Some(limits.max_buffer_size),
        features: setup
            .device
            .features()
            .iter_names()
            .map(|(name, _)| name.into())
            .collect(),
        limits: Limits {
            largest_tensor: Some(usize::try_from(largest).unwrap_or(usize::MAX)),
            ..Limits::CPU
        },
        ..cpu_report(adapter, why)
    };
    Ok((device, report))
}

/// The adapter that WebGPU would give us; none without WebGPU.
async fn adapter() -> Option<Adapter> {
    let navigator = get(&js_sys::global(), "navigator")?;
    let gpu = get(&navigator, "gpu")?;
    let request: Function = get(&gpu, "requestAdapter")?.dyn_into().ok()?;
    let options = JSON::parse(r#"{"powerPreference": "high-performance"}"#).ok()?;
    let promise: Promise = request.call1(&gpu, &options).ok()?.dyn_into().ok()?;
    let adapter = JsFuture::from(promise).await.ok()?;
    let adapter = Some(adapter).filter(JsValue::is_object)?;
    let info = get(&adapter, "info").unwrap_or(JsValue::UNDEFINED);
    let word = |name| get(&info, name).and_then(|word| word.as_string()).unwrap_or_default();
    let flag = |object: &JsValue| get(object, "isFallbackAdapter").and_then(|flag| flag.as_bool());
    Some(Adapter {
        vendor: word("vendor"),
        architecture: word("architecture"),
        description: word("description"),
        fallback: flag(&info).or(flag(&adapter)).unwrap_or(false),
    })
}

/// Tells the page how far the work is, and waits for its answer.
async fn tell(progress: &Function, done: usize, of: usize) -> Result<bool, Error> {
    let failed = |why: JsValue| Error::Request(format!("the page failed to take the progress: {why:?}"));
    let answer = progress
        .call2(&JsValue::NULL, &done.into(), &of.into())
        .map_err(failed)?;
    let answer = match answer.dyn_into::<Promise>() {
        Ok(promise) => JsFuture::from(promise).await.map_err(failed)?,
        Err(answer) => answer,
    };
    Ok(answer.as_bool().unwrap_or(true))
}

/// A property that is there and has a value.
fn get(object: &JsValue, name: &str) -> Option<JsValue> {
    let value = Reflect::get(object, &name.into()).ok()?;
    (!value.is_undefined() && !value.is_null()).then_some(value)
}

fn set(object: &JsValue, name: &str, value: &JsValue) -> Result<(), JsValue> {
    Reflect::set(object, &name.into(), value).map(drop)
}

/// A plain object of all that is no bytes, which the worker can send to the page as it is.
fn plain(value: &impl Serialize) -> Result<JsValue, JsValue> {
    let text = serde_json::to_string(value).map_err(|why| to_js(Error::Request(why.to_string())))?;
    JSON::parse(&text)
}

/// An Error whose name is the error's kind.
fn to_js(error: Error) -> JsValue {
    let made = js_sys::Error::new(&error.to_string());
    made.set_name(error.kind());
    made.into()
}
