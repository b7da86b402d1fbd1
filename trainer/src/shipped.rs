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

/// The file or folder of this name: in the working folder, in `share/flapsam` of the place where the program is installed,
/// or in the sources that it was built from, whichever has it first. Where none has, the name itself, so that whoever
/// misses it names it.
pub fn shipped(name: &str) -> PathBuf {
    let here = PathBuf::from(name);
    if here.exists() {
        return here;
    }
    let program = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let installed = program.and_then(|path| Some(path.parent()?.parent()?.join("share/flapsam")));
    // A release's archive has it all beside the program.
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join("share/flapsam")));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
    let places = [installed, beside, sources].into_iter().flatten();
    places
        .map(|place| place.join(name))
        .find(|path| path.exists())
        .unwrap_or(here)
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
