use std::path::Path;

use flapsam_model::checkpoint::sha256;

use super::runner::adapters;
use crate::error::Result;
use crate::federation::trace::Mark;
use crate::files::{files_below, read};

/// The file of a run's folder that its trace is in.
pub const TRACE: &str = "trace.txt";

/// A run's trace, a line for each checksum in the order of time: what its clients had after their first, tenth and last
/// step of each round, what travelled, the adapters, and the masks in the folder `masks`.
pub(super) fn text(marks: &[Mark], out: &Path, masks: &Path) -> Result<String> {
    let mut lines: Vec<String> = marks.iter().map(Mark::to_string).collect();
    let of_file = |path: &Path| {
        let name = path.strip_prefix(out).unwrap_or(path);
        // The same on every system.
        let name: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
        Ok(format!("{}: {}", name.join("/"), sha256(&read(path)?)))
    };
    let files = [adapters(out)?, files_below(masks)?].concat();
    lines.extend(files.iter().map(|path| of_file(path)).collect::<Result<Vec<_>>>()?);
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}
