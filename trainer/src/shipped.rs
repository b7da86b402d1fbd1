//! What comes with the program: suites and their golden figures, manifests, the viewer's page.

use std::path::{Path, PathBuf};

/// Suites, golden figures and the small base.
pub const GOLDEN: &str = "golden";
/// The small base that most defaults name.
pub const NANO: &str = "golden/nano.safetensors";
/// Manifests of data sets.
pub const MANIFESTS: &str = "data-manifests";
/// The viewer's page, where it was built.
pub const PAGE: &str = "viewer/web/dist";

/// The file or folder of this name: in the working folder, in `share/flapsam` beside the program or
/// one folder up, or in the sources that it was built from, whichever has it first. Where none has, the name itself, so that whoever
/// misses it names it.
pub fn shipped(name: &str) -> PathBuf {
    let here = PathBuf::from(name);
    if here.exists() {
        return here;
    }
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    // Beside it lies what an archive has, one folder up what is installed.
    let above = program.iter().flat_map(|program| program.ancestors().skip(1).take(2));
    let shared = above.map(|folder| folder.join("share/flapsam"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
    let mut places = shared.chain(sources).map(|place| place.join(name));
    places.find(|path| path.exists()).unwrap_or(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_the_last_resort() {
        // Tests run in the package's folder, which has none of it.
        assert!(shipped(NANO).is_file() && shipped(MANIFESTS).is_dir());
        assert_eq!(shipped("golden/no-such-thing"), Path::new("golden/no-such-thing"));
    }
}
