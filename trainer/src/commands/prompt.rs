use std::path::{Path, PathBuf};
use std::str::FromStr;

use flapsam_model::labels::dice;
use flapsam_model::memory;
use flapsam_model::parameters::StateDict;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::prompts::{Answer, Click, Prompt, PromptedSam, Slice, window};
use flapsam_model::volume::{Plane, Volume};
use serde::Serialize;

use super::scan_args::ScanArgs;
use super::{Outcome, print_json};
use crate::data::cases::dataset::{labels_of, read_volume};
use crate::data::cases::scan::{MaskFormat, Scan};
use crate::data::dicom::segmentation::About;
use crate::data::manifest::label_ids::{LabelIds, held};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::{Error, Result};
use crate::files::{enough_memory, refuse_input, write};
use crate::progress::Progress;
use crate::shipped::{NANO, shipped};
use crate::state_dict::read_state_dict;

const PIXELS: &str = "X and Y are pixels of the slice as the page shows it, 0,0 the centre of the first one: of an axial slice \
                      X columns from the patient's right to the left and Y rows from the front to the back, of a coronal \
                      one from the right to the left and from the head to the feet, of a sagittal one from the back to the \
                      front and from the head to the feet.";

#[derive(Debug, clap::Args)]
#[command(after_help = PIXELS)]
pub struct Args {
    #[command(flatten)]
    scan: ScanArgs,
    /// The base checkpoint that is asked, without any adapter.
    #[arg(long, default_value_os_t = shipped(NANO))]
    base: PathBuf,
    /// Along which the slice lies: axial, coronal or sagittal.
    #[arg(long, default_value_t)]
    plane: Plane,
    /// Which slice: its number, from 1 at the feet, the back or the patient's left, or a place in it, mm towards the
    /// patient's right, front and head.
    #[arg(long, value_name = "N|X,Y,Z", allow_hyphen_values = true)]
    slice: Which,
    #[command(flatten)]
    asked: Asked,
    /// The values that are shown as black and as white. Without it, the 2nd and the 98th percentile of the scan's middle,
    /// half as long as the scan along each axis. The page begins with its run's range, or with nearly these values; for
    /// its very masks pass the window that it shows.
    #[arg(long, value_name = "BLACK,WHITE", allow_hyphen_values = true)]
    window: Option<Window>,
    /// Where the best mask goes, by the network's own score: NIfTI with the scan's shape and affine, 0 on all other slices,
    /// gzipped if its name says so (.nii.gz).
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// True labels on the scan's grid, with which the masks are compared on this slice.
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Which of the labels are meant, such as 1+2; without it all but 0.
    #[arg(long, value_name = "IDS", requires = "truth", value_parser = |ids: &str| LabelIds::new([ids]))]
    label_ids: Option<LabelIds>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Asked {
    /// A click on the object; as often as needed.
    #[arg(long, value_name = "X,Y", allow_hyphen_values = true)]
    click: Vec<Numbers<2>>,
    /// A click on what is not the object; as often as needed.
    #[arg(long, value_name = "X,Y", allow_hyphen_values = true)]
    click_off: Vec<Numbers<2>>,
    /// Two opposite corners of a box around the object.
    #[arg(long = "box", value_name = "X,Y,X,Y", allow_hyphen_values = true)]
    region: Option<Numbers<4>>,
}

impl Asked {
    fn prompt(&self) -> Prompt {
        let click = |positive| {
            move |place: &Numbers<2>| {
                let [x, y] = place.to_f32();
                Click { x, y, positive }
            }
        };
        let on = self.click.iter().map(click(true));
        Prompt {
            clicks: on.chain(self.click_off.iter().map(click(false))).collect(),
            region: self.region.map(Numbers::to_f32),
        }
    }
}

/// Finite numbers, apart by commas.
#[derive(Debug, Clone, Copy)]
struct Numbers<const N: usize>([f64; N]);

impl<const N: usize> Numbers<N> {
    fn to_f32(self) -> [f32; N] {
        self.0.map(|number| number as f32)
    }
}

impl<const N: usize> FromStr for Numbers<N> {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |part: &str| part.trim().parse::<f64>().ok();
        let finite = |number: &f64| (*number as f32).is_finite();
        let numbers: Option<Vec<f64>> = text.split(',').map(|part| number(part).filter(finite)).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers
            .map(Self)
            .ok_or_else(|| format!("{N} numbers are needed, with commas between them"))
    }
}

#[derive(Debug, Clone, Copy)]
struct Window([f32; 2]);

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let [black, white] = text.parse::<Numbers<2>>()?.to_f32();
        match black < white {
            true => Ok(Self([black, white])),
            false => Err("the value that is black must be below the one that is white".into()),
        }
    }
}

/// Which slice is meant.
#[derive(Debug, Clone, Copy)]
enum Which {
    Number(usize),
    Place([f64; 3]),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Ok(number) = text.trim().parse() {
            return Ok(Which::Number(number));
        }
        let place = text.parse::<Numbers<3>>().map(|place| Which::Place(place.0));
        place.map_err(|_| "it is a number from 1, or a place of three numbers with commas between them".into())
    }
}

impl Which {
    fn of(self, scan: &Volume, plane: Plane) -> std::result::Result<Slice, flapsam_model::Error> {
        match self {
            Which::Number(number) => Slice::numbered(scan, plane, number),
            Which::Place(mm) if scan.holds(mm) => Ok(Slice::at(scan, plane, mm)),
            Which::Place([x, y, z]) => Err(flapsam_model::Error::Volume(format!(
                "the place {x},{y},{z} mm is not in it; name one that is, or a slice by its number"
            ))),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    network: &'static str,
    base_sha256: String,
    device: String,
    slice: Slice,
    window: [f32; 2],
    prompt: Prompt,
    masks: Vec<Mask>,
    /// The number of the mask with the highest score.
    best: usize,
    truth: Option<Extent>,
    /// Where the best mask was written.
    mask: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Mask {
    /// From 1.
    number: usize,
    /// The network's own guess of its intersection over union with what is meant.
    score: f32,
    #[serde(flatten)]
    extent: Extent,
    /// With the true labels on this slice.
    dice: Option<f64>,
}

/// How much of a slice is marked.
#[derive(Debug, Serialize)]
struct Extent {
    pixels: usize,
    mm2: f64,
}

impl Extent {
    fn of(mask: &[u8], scan: &Volume, plane: Plane) -> Self {
        let pixels = mask.iter().filter(|&&inside| inside == 1).count();
        Self {
            pixels,
            mm2: pixels as f64 * scan.pixel_mm2(plane),
        }
    }
}

pub fn run(args: Args) -> Result<Outcome> {
    let format = args.out.as_deref().map(MaskFormat::of).transpose()?;
    let scan_path = &args.scan.scan;
    let source = open(&args, format)?;
    let (_, scan) = source.read(None, &Preprocessing::default())?;
    let slice = args.slice.of(&scan, args.plane).map_err(Error::content(scan_path))?;
    let prompt = args.asked.prompt();
    prompt.check(slice.pixels)?;
    let truth = args.truth.as_ref();
    let truth = truth.map(|path| truth_of(path, &args, &scan, &slice)).transpose()?;
    let window = args.window.map_or_else(|| window(&scan), |window| window.0);

    let device = OpenDevice::open(args.device)?;
    let (state, base_sha256) = read_state_dict(&args.base)?;
    let network = network(&args.base, state, &device)?;
    let answer = answer(&network, &args.base, &slice, window, &prompt)?;

    let (masks, best) = (answer.masks(), answer.best());
    let masks: Vec<&[u8]> = masks.chunks_exact(slice.values.len()).collect();
    if let (Some(out), Some(format), Some(mask)) = (&args.out, format, masks.get(best)) {
        let mut labels = vec![0; scan.voxels.len()];
        for (voxel, &inside) in slice.voxels(&scan).zip(*mask) {
            labels[voxel] = inside;
        }
        let about = About {
            classes: &["background", "object"].map(String::from),
            model_sha256: &base_sha256,
            with_patient: false,
        };
        write(out, &source.mask(&scan, &labels, format, &about)?)?;
    }
    let described = masks.iter().zip(&answer.scores).enumerate();
    let described = described.map(|(index, (mask, &score))| Mask {
        number: index + 1,
        score,
        extent: Extent::of(mask, &scan, args.plane),
        dice: truth.as_ref().map(|truth| dice(mask, truth, 1)),
    });
    let report = Report {
        masks: described.collect(),
        network: network.name,
        base_sha256,
        device: device.name,
        window,
        prompt,
        best: best + 1,
        truth: truth.map(|truth| Extent::of(&truth, &scan, args.plane)),
        slice,
        mask: args.out,
    };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::Passed)
}

/// The scan, once it is known that a mask of it may go to where it is to go.
fn open(args: &Args, format: Option<MaskFormat>) -> Result<Scan> {
    if let Some(out) = &args.out {
        let inputs = [Some(&args.scan.scan), Some(&args.base), args.truth.as_ref()];
        let inputs: Vec<&Path> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
        refuse_input(out, &inputs)?;
    }
    let source = args.scan.open()?;
    if let (Some(out), Some(format)) = (&args.out, format) {
        source.check_output(out, format)?;
    }
    Ok(source)
}

/// What the network of a checkpoint answers, if there is memory to ask it.
fn answer(network: &PromptedSam, base: &Path, slice: &Slice, window: [f32; 2], prompt: &Prompt) -> Result<Answer> {
    let work = memory::prompted_on_cpu(&network.config, slice.pixels);
    enough_memory(work as u64).map_err(|why| Error::invalid(base, format!("to ask this network {why}")))?;
    let progress = Progress::new(2);
    progress.at(0, None, "encoding the slice");
    let embedding = network.embed(&network.prepare(slice.seen(window)));
    progress.step("asking");
    Ok(pollster::block_on(network.ask(embedding, prompt, slice.pixels))?)
}

/// The checkpoint's network on a device, if there is memory for it: while it is built, its weights are held once more.
fn network(base: &Path, state: StateDict, device: &OpenDevice) -> Result<PromptedSam> {
    let weights: usize = state.values().map(|array| size_of_val(&array.values[..])).sum();
    enough_memory(weights as u64).map_err(|why| Error::invalid(base, why))?;
    PromptedSam::new(state, &device.device).map_err(Error::content(base))
}

/// The true labels of a slice's pixels: 1 where one of those that are meant is.
fn truth_of(path: &Path, args: &Args, scan: &Volume, slice: &Slice) -> Result<Vec<u8>> {
    let labels = read_volume(path, None, &Preprocessing::default())?;
    if let Some(ids) = &args.label_ids {
        let there = held(&labels);
        if let Some(missing) = ids.ids().find(|id| !there.contains(id)) {
            let why = format!("no voxel has the label {missing}, which --label-ids names; name labels that are there");
            return Err(Error::invalid(path, why));
        }
    }
    let labels = labels_of(&args.scan.scan, scan, path, labels, args.label_ids.as_ref())?;
    let inside = |voxel: usize| u8::from(labels.voxels[voxel] != 0.0);
    Ok(slice.voxels(scan).map(inside).collect())
}

fn print_report(report: &Report) {
    let Slice {
        plane,
        pixels: [rows, columns],
        spacing: [down, across],
        number,
        of,
        ..
    } = report.slice;
    let [black, white] = report.window;
    println!("{} on {}", report.network, report.device);
    println!(
        "{plane} slice {number} of {of}: {columns} x {rows} pixels of {across:.3} x {down:.3} mm, black at {black}, white at \
         {white}"
    );
    if let Some(Extent { pixels, mm2 }) = report.truth {
        println!("truth: {pixels} pixels, {mm2:.1} mm²");
    }
    for mask in &report.masks {
        let Extent { pixels, mm2 } = mask.extent;
        let dice = mask.dice.map_or(String::new(), |dice| format!(", Dice {dice:.3}"));
        let best = match mask.number == report.best {
            true => " (best score)",
            false => "",
        };
        let (number, score) = (mask.number, mask.score);
        println!("mask {number}: score {score:.3}, {pixels} pixels, {mm2:.1} mm²{dice}{best}");
    }
    if let Some(mask) = &report.mask {
        println!("best mask: {}", mask.display());
    }
}
