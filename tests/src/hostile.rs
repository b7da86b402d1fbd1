//! What the program does with bytes from anybody, as plain functions: bytes in, verdict out. None panics, whatever the bytes;
//! none takes a second, or memory that the bytes do not account for. The fuzzer (`fuzz/`) and the replay of its corpus
//! (`tests/fuzz_corpus.rs`) call the same.

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use flapsam::bundle::check::Bundle;
use flapsam::data::cases::dataset::volume_of;
use flapsam::data::cases::scan::{MaskFormat, Scan};
use flapsam::data::dicom::segmentation::About;
use flapsam::data::files::archive::{Limits, unpack};
use flapsam::data::manifest::{Manifest, parse_cases, table};
use flapsam::experiment::Experiment;
use flapsam::experiment::across::{Enrolment, HandedIn, Order};
use flapsam::federation::envelope::{Kind, open, seal};
use flapsam::federation::wire::{self, Precision};
use flapsam::state_dict::checkpoint as checkpoint_of;
use flapsam_model::adapter::Adapter;
use flapsam_model::checkpoint::{adapt, base_sha256, read_safetensors};
use flapsam_model::config::{AdapterConfig, EncoderConfig, SamConfig, VitConfig};
use flapsam_model::labels;
use flapsam_model::memory::Content;
use flapsam_model::parameters::StateDict;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::{Packing, Volume, restated};
use tempfile::TempDir;

/// Nothing where the bytes are taken, else what is said of them.
pub type Verdict = Result<(), String>;

/// A reader of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What the folder of its corpus and the fuzzer's program are called.
    pub name: &'static str,
    /// The reader.
    pub judge: fn(&[u8]) -> Verdict,
}

/// All of them.
pub const TARGETS: [Target; 13] = [
    target("scan", scan),
    target("gzip", gzip),
    target("pth", pth),
    target("checkpoint", checkpoint),
    target("adapter", adapter),
    target("manifest", manifest),
    target("table", cases),
    target("experiment", experiment),
    target("message", message),
    target("envelope", envelope),
    target("zip", archive),
    target("dicom", dicom),
    target("bundle", bundle),
];

const fn target(name: &'static str, judge: fn(&[u8]) -> Verdict) -> Target {
    Target { name, judge }
}

/// What messages call the bytes.
const NAME: &str = "bytes";

/// A scan as model and page read it: the volume, and all that is made of its header.
pub fn scan(bytes: &[u8]) -> Verdict {
    let whole = Volume::from_nifti(bytes, None);
    let one = Volume::from_nifti(bytes, Some(1));
    for volume in [&whole, &one].into_iter().flatten() {
        use_all_of(volume);
    }
    if let Ok(bytes) = restated(bytes) {
        said(Volume::from_nifti(&bytes, None).map(|_| ()))?;
    }
    said(whole.map(|_| ()))
}

/// A scan as the program reads it from a file, gzipped mostly: with its memory judged.
pub fn gzip(bytes: &[u8]) -> Verdict {
    let volume = volume_of(
        Path::new(NAME),
        bytes,
        None,
        None,
        &Preprocessing::default(),
        Content::Scan,
    );
    said(volume.map(|volume| use_all_of(&volume)))
}

fn use_all_of(volume: &Volume) {
    let _ = (volume.spacing(), volume.voxel_mm3(), volume.has_right_angles());
    let _ = (volume.check_finite(), volume.voxel_at([0.0; 3]));
    let _ = labels::check_pair(volume, NAME, volume);
    let slices = volume.to_slices();
    let labels: Vec<u8> = slices.values.iter().map(|&value| value as u8).collect();
    let mask = volume.mask_to_nifti(&volume.axial().restore(&labels), Packing::Plain);
    drop((slices, labels));
    let _ = Volume::from_nifti(&mask, None);
}

/// A base checkpoint in PyTorch's or in safetensors' form.
pub fn pth(bytes: &[u8]) -> Verdict {
    said(checkpoint_of(Path::new(NAME), bytes).map(|_| ()))
}

/// A safetensors checkpoint, and a network that starts from it.
pub fn checkpoint(bytes: &[u8]) -> Verdict {
    let state = checkpoint_of(Path::new(NAME), bytes)
        .map_err(|why| why.to_string())?
        .state;
    let notes = read_safetensors(bytes).map_or(HashMap::new(), |(_, notes)| notes);
    let _ = base_sha256(&notes, String::new);
    let network = adapt(&state, &smallest_sam(), Some(&AdapterConfig::lora(1, 1)), 1);
    said(network.map(|_| ()))
}

/// The smallest network that there can be, so that a whole checkpoint of it is a few kilobytes.
pub fn smallest_sam() -> SamConfig {
    SamConfig {
        image_size: 2,
        encoder: EncoderConfig::Vit(VitConfig {
            patch_size: 1,
            embed_dim: 2,
            depth: 1,
            num_heads: 1,
            window_size: 1,
            global_attn_indexes: Vec::new(),
        }),
        prompt_dim: 32,
        decoder_mlp_dim: 1,
        decoder_heads: 1,
    }
}

/// An adapter, and a small scan prepared as it says.
pub fn adapter(bytes: &[u8]) -> Verdict {
    let adapter = Adapter::from_bytes(bytes).map_err(|why| why.to_string())?;
    let _ = adapter.on_base(&StateDict::new(), &adapter.metadata.base_sha256);
    let preprocessing = &adapter.metadata.preprocessing;
    let dims = [4, 3, 2];
    let classes = adapter.metadata.classes.len();
    let values = (0..24).map(|value| value as f32);
    let volume = Volume::new(
        dims,
        values.collect(),
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
    );
    let needed = preprocessing.resampling_bytes(&volume, Content::Labels(classes));
    if needed.is_ok_and(|needed| needed <= 1 << 20) {
        let site = preprocessing.sites.keys().next();
        let prepared = preprocessing.prepare(&volume, site.map(String::as_str));
        if let Ok(prepared) = prepared {
            let _ = prepared.restore(&vec![0; prepared.slices.values.len()]);
        }
        let _ = preprocessing.labels_on_grid(volume, classes);
    }
    Ok(())
}

/// A manifest's document. Of its table it has the name and the checksum; the cases are not read.
pub fn manifest(bytes: &[u8]) -> Verdict {
    let manifest = Manifest::parse(Path::new(NAME), bytes, |_| {
        parse_cases(Path::new(NAME), TABLE.as_bytes())
    });
    let manifest = manifest.map_err(|why| why.to_string())?;
    let _ = (manifest.to_files(), manifest.data_files(), manifest.slice_shares());
    Ok(())
}

/// A table of two cases.
const TABLE: &str = "case_id,site,split,slices,image,image_sha256,image_bytes,label,label_sha256,label_bytes
a,A,train,3,A/a.nii.gz,,,A/a_mask.nii.gz,,
b,A,test,,A/b.nii.gz,,,A/b_mask.nii.gz,,
";

/// A manifest's table of cases, which is written again, and counted.
pub fn cases(bytes: &[u8]) -> Verdict {
    let cases = parse_cases(Path::new(NAME), bytes).map_err(|why| why.to_string())?;
    let _ = (table(&cases), cases.iter().map(|case| case.slices).sum::<usize>());
    let _ = cases.iter().any(|case| case.is_template() && case.label.is_pattern());
    Ok(())
}

/// An experiment file that extends no other.
pub fn experiment(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let experiment = Experiment::parse(Path::new(NAME), text, "").map_err(|why| why.to_string())?;
    let _ = (
        experiment.deciding_settings(),
        experiment.differences(&experiment),
        experiment.name(),
    );
    let _ = (
        experiment.manifest(Path::new("data")),
        experiment.base_checkpoint(Path::new("data")),
    );
    Ok(())
}

/// A message between a client and the server, which is sent on as it is and smaller.
pub fn message(bytes: &[u8]) -> Verdict {
    let state = wire::decode(bytes).map_err(|why| why.to_string())?;
    wire::check_finite(&state, "").map_err(|why| why.to_string())?;
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        wire::decode(&wire::encode(&state, precision)).map_err(|why| why.to_string())?;
    }
    Ok(())
}

/// A file that travels between sites, of whichever kind: what it says of itself and the message in it, which are sealed
/// again.
pub fn envelope(bytes: &[u8]) -> Verdict {
    opened::<Enrolment>(bytes)
        .or_else(|_| opened::<Order>(bytes))
        .or_else(|_| opened::<HandedIn>(bytes))
}

fn opened<T: Kind + PartialEq + Debug>(bytes: &[u8]) -> Verdict {
    let (about, state) = open::<T>(bytes).map_err(|why| why.to_string())?;
    let again = open::<T>(&seal(&about, &state)).map_err(|why| why.to_string())?;
    // A number that is none equals nothing, and travels all the same.
    assert_eq!(format!("{again:?}"), format!("{:?}", (about, &state)));
    message(&state)
}

/// A folder of its own: in memory where there is such a place, since each file is made sure of, and there are thousands.
fn room() -> Result<TempDir, String> {
    let memory = Path::new("/dev/shm");
    let room = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    room.map_err(|why| why.to_string())
}

/// A DICOM file, which is read as a scan, and a mask of it written.
pub fn dicom(bytes: &[u8]) -> Verdict {
    let room = room()?;
    let path = room.path().join("image.dcm");
    fs::write(&path, bytes).map_err(|why| why.to_string())?;
    let scan = Scan::open(&path, None, None).map_err(|why| why.to_string())?;
    let (_, volume) = scan
        .read(None, &Preprocessing::default())
        .map_err(|why| why.to_string())?;
    let about = About {
        classes: &["background", "object"].map(String::from),
        model_sha256: "",
        with_patient: false,
    };
    let mut labels = vec![0; volume.voxels.len()];
    labels.iter_mut().take(1).for_each(|label| *label = 1);
    said(
        scan.mask(&volume, &labels, MaskFormat::DicomSegmentation, &about)
            .map(|_| ()),
    )
}

/// A bundle of evidence: its files are held against their checksums, its runs against their figures.
pub fn bundle(bytes: &[u8]) -> Verdict {
    let bundle = Bundle::open(Path::new(NAME), bytes).map_err(|why| why.to_string())?;
    let checks = bundle.check();
    assert!(!checks.is_empty());
    said(bundle.runs().map(|_| ()))
}

/// A data set's archive, which is unpacked.
pub fn archive(bytes: &[u8]) -> Verdict {
    let room = room()?;
    let archive = room.path().join("archive.zip");
    fs::write(&archive, bytes).map_err(|why| why.to_string())?;
    let limits = Limits {
        files: 16,
        bytes: 1 << 20,
    };
    said(unpack(&archive, &room.path().join("data"), limits, &mut |_, _| ()).map(|_| ()))
}

fn said(result: Result<(), impl std::fmt::Display>) -> Verdict {
    result.map_err(|why| why.to_string())
}
