use flapsam_model::adapter::Adapter;
use flapsam_model::checkpoint::{EXPORT_KEY, sha256, write_safetensors, write_safetensors_f16};
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::method::Method;
use flapsam_model::parameters::{StateDict, initialise};
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::Volume;

use super::*;

const SIDE: usize = 32;
const DIMS: [usize; 3] = [20, 24, 11];
const AFFINE: [[f64; 4]; 3] = [[-2.0, 0.0, 0.0, 10.0], [0.0, 1.0, 0.0, -5.0], [0.0, 0.0, 3.0, 0.5]];
const ROOMY: Limits = Limits {
    largest_tensor: None,
    host: usize::MAX,
};

fn sam() -> SamConfig {
    SamConfig::named("nano").unwrap().with_image_size(SIDE)
}

fn base() -> StateDict {
    initialise(&Sam::layout(&sam(), None).unwrap(), 3)
}

fn adapter_for(base: &[u8], preprocessing: Preprocessing) -> Vec<u8> {
    let config = AdapterConfig::lora(2, 4);
    let mut layout = Sam::layout(&sam(), Some(&config)).unwrap();
    let trained = Method::FlapSam.trained(&layout);
    layout.retain(|key, _| trained.contains(key));
    let metadata = AdapterMetadata {
        method: Method::FlapSam,
        sam: sam(),
        adapter: config,
        classes: ["background", "kidney", "tumour"].map(String::from).into(),
        preprocessing,
        base_sha256: sha256(base),
        seed: 1,
    };
    let state = initialise(&layout, 9);
    Adapter { metadata, state }.to_bytes()
}

fn own(bytes: &[u8]) -> Promised<'_> {
    Promised { bytes, sha256: None }
}

fn network(preprocessing: Preprocessing) -> Network {
    let base = write_safetensors(&base(), None);
    let adapter = adapter_for(&base, preprocessing);
    Network::load(own(&base), own(&adapter), &Device::flex()).unwrap()
}

fn scan() -> Vec<u8> {
    let voxels = (0..DIMS.iter().product()).map(|index: usize| (index * 37 % 400) as f32 - 200.0);
    Volume::new(DIMS, voxels.collect(), AFFINE).to_nifti_i16()
}

fn segment(network: &Network, scan: &[u8], limits: Limits) -> Result<Option<Segmented>, Error> {
    pollster::block_on(network.segment(own(scan), None, limits, async |_, _| Ok(true)))
}

#[test]
fn the_mask_is_the_native_paths_on_the_scans_own_grid() {
    let network = network(Preprocessing::default());
    let mut told = Vec::new();
    let scan = scan();
    let found = network.segment(own(&scan), None, ROOMY, async |done, of| {
        told.push((done, of));
        Ok(true)
    });
    let found = pollster::block_on(found).unwrap().unwrap();
    assert_eq!(told.first(), Some(&(0, 11)));
    assert_eq!(told.last(), Some(&(11, 11)));

    let volume = Volume::from_nifti(&scan, None).unwrap();
    let prepared = Preprocessing::default().prepare(&volume, None).unwrap();
    let labels = flapsam_model::segment::segment(
        &network.sam,
        &prepared.slices,
        Scaling::Volume,
        SIDE,
        &network.device,
        |_, _| true,
    );
    let labels = volume.axial().restore(&pollster::block_on(labels).unwrap().unwrap());
    let mask = Volume::from_nifti(&found.mask, None).unwrap();
    assert_eq!((mask.dims, mask.affine), (DIMS, AFFINE));
    assert!(
        mask.voxels
            .iter()
            .zip(&labels)
            .all(|(mask, label)| *mask == *label as f32)
    );
    assert!(
        labels.iter().any(|&label| label != labels[0]),
        "a mask of one label shows nothing"
    );
    assert_eq!(found.grid_mask, None);
    let kidney = &found.classes[0];
    assert_eq!(kidney.voxels, labels.iter().filter(|&&label| label == 1).count());
    assert!((kidney.millilitres - kidney.voxels as f64 * 0.006).abs() < 1e-9);
}

#[test]
fn a_resampled_network_gives_both_masks() {
    let grid = [10, 12, 5];
    let resampled = Preprocessing {
        resample: Some(grid),
        ..Preprocessing::default()
    };
    let found = segment(&network(resampled), &scan(), ROOMY).unwrap().unwrap();
    assert_eq!(Volume::from_nifti(&found.mask, None).unwrap().dims, DIMS);
    let grid_mask = found.grid_mask.unwrap();
    assert_eq!(Volume::from_nifti(&grid_mask, None).unwrap().dims, grid);
    // The same grid by the distance of its voxels.
    let scanned = Volume::from_nifti(&scan(), None).unwrap();
    let by_spacing = Preprocessing {
        spacing_mm: Some([0, 1, 2].map(|axis| scanned.spacing()[axis] * DIMS[axis] as f64 / grid[axis] as f64)),
        ..Preprocessing::default()
    };
    let again = segment(&network(by_spacing), &scan(), ROOMY).unwrap().unwrap();
    assert_eq!((again.mask, again.grid_mask), (found.mask, Some(grid_mask)));
    // A spacing at which the scan would not fit is refused before it is resampled.
    let fine = Preprocessing {
        spacing_mm: Some([0.001; 3]),
        ..Preprocessing::default()
    };
    let refused = segment(&network(fine), &scan(), ROOMY).unwrap_err();
    assert!(refused.to_string().contains("spacing_mm"), "{refused}");
}

#[test]
fn work_stops_when_it_is_told_to() {
    let network = network(Preprocessing::default());
    let scan = scan();
    let mut steps = 0;
    let stopped = network.segment(own(&scan), None, ROOMY, async |_, _| {
        steps += 1;
        Ok(steps < 2)
    });
    assert!(pollster::block_on(stopped).unwrap().is_none());
    assert_eq!(steps, 2);
}

#[test]
fn a_base_in_half_precision_belongs_to_its_adapter() {
    let full = write_safetensors(&base(), None);
    let adapter = adapter_for(&full, Preprocessing::default());
    let note = |format: &str| {
        let about = format!(r#"{{"format": "{format}", "base_sha256": "{}"}}"#, sha256(&full));
        write_safetensors_f16(&base(), Some((EXPORT_KEY, about))).unwrap()
    };
    let load = |base: &[u8]| Network::load(own(base), own(&adapter), &Device::flex());
    assert!(load(&note("base-f16")).is_ok());
    assert!(
        load(&note("merged"))
            .unwrap_err()
            .to_string()
            .contains("base checkpoint")
    );
}

#[test]
fn files_that_are_not_the_promised_ones_are_refused() {
    let base = write_safetensors(&base(), None);
    let adapter = adapter_for(&base, Preprocessing::default());
    let promised = "0".repeat(64);
    let wrong = |bytes| Promised {
        bytes,
        sha256: Some(&promised),
    };
    let kind = |base, adapter| Network::load(base, adapter, &Device::flex()).unwrap_err().kind();
    assert_eq!(kind(wrong(&base), own(&adapter)), "checksum");
    assert_eq!(kind(own(&base), wrong(&adapter)), "checksum");
    assert_eq!(kind(own(&adapter), own(&adapter)), "file");
    assert_eq!(kind(own(&base), own(&base)), "file");
    assert_eq!(kind(own(&base[..base.len() / 2]), own(&adapter)), "file");

    let network = Network::load(own(&base), own(&adapter), &Device::flex()).unwrap();
    let scan = scan();
    let refused = network.segment(wrong(&scan), None, ROOMY, async |_, _| Ok(true));
    assert_eq!(pollster::block_on(refused).unwrap_err().kind(), "checksum");
}

#[test]
fn bad_scans_are_refused_with_a_sentence() {
    let network = network(Preprocessing::default());
    let refusal = |scan: &[u8]| {
        let refusal = segment(&network, scan, ROOMY).unwrap_err();
        assert_eq!(refusal.kind(), "file", "{refusal}");
        refusal.to_string()
    };
    let scan = scan();
    assert!(refusal(&scan[..scan.len() / 2]).contains("cut off"));
    assert!(refusal(b"a text file").contains("cut off"));
    assert!(refusal(&[0; 400]).contains("the scan"));
    let mut holes = Volume::from_nifti(&scan, None).unwrap();
    holes.voxels[5] = f32::NAN;
    assert!(holes.check_finite().is_err());
}

#[test]
fn limits_hold_before_the_work_begins() {
    let network = network(Preprocessing::default());
    let refusal = |limits, kind: &str| {
        let told = async |_, _| panic!("the work has begun");
        let scan = scan();
        let refusal = pollster::block_on(network.segment(own(&scan), None, limits, told)).unwrap_err();
        assert_eq!(refusal.kind(), kind);
        refusal.to_string()
    };
    let tight = Limits { host: 1000, ..ROOMY };
    assert!(refusal(tight, "memory").contains("flapsam segment"));
    let tiny = Limits {
        largest_tensor: Some(1000),
        ..ROOMY
    };
    assert!(refusal(tiny, "limit").contains("choose the CPU"));
    // A limit that holds one slice is enough: fewer go through the network together.
    let one = memory::largest_tensor(&sam(), &network.metadata.adapter, 1, [DIMS[1], DIMS[0]]);
    let narrow = Limits {
        largest_tensor: Some(one),
        ..ROOMY
    };
    let (few, many) = (
        segment(&network, &scan(), narrow).unwrap().unwrap(),
        segment(&network, &scan(), ROOMY).unwrap().unwrap(),
    );
    assert_eq!(few.classes, many.classes);
}
