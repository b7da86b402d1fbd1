use serde_json::json;

use super::DataSet;
use crate::commands::{Outcome, print_json};
use crate::data::cases::lock::{Pinned, pin};
use crate::error::Result;
use crate::folder_lock::FolderLock;

pub(super) fn run(args: DataSet) -> Result<Outcome> {
    let manifest = args.places.published(&args.name)?;
    let folder = args.places.data.join(&manifest.about.name);
    // Without the data there is nothing to hold.
    let _lock = folder.is_dir().then(|| FolderLock::take(&folder)).transpose()?;
    let pinned = pin(manifest, &args.places.data)?;
    match args.json {
        true => print_json(&json!({
            "lock": pinned.path,
            "files_pinned_now": pinned.files,
            "cases_known": pinned.cases,
            "cases_missing": pinned.missing,
            "refused": pinned.refused,
        }))?,
        false => print(&pinned),
    }
    Ok(Outcome::of(pinned.refused.is_empty()))
}

/// Says what pinning came to.
pub fn print(pinned: &Pinned) {
    for why in &pinned.refused {
        println!("not pinned  {why}");
    }
    println!(
        "{} files pinned now; every file is known of {} cases, {} cases are missing, {} refused; lock file {}",
        pinned.files,
        pinned.cases,
        pinned.missing,
        pinned.refused.len(),
        pinned.path.display()
    );
}
