//! How many whole volumes may be in memory at a time.

use rayon::prelude::*;

use crate::data::manifest::Case;
use crate::error::Result;
use crate::files::system_bytes;

/// A case takes about this many times its compressed scan: values and labels as they are read, in axial order, and as
/// they are written, at four bytes each, from files that are gzipped to a third or so of two bytes.
const TIMES_COMPRESSED: u64 = 40;
/// Where the system does not say how much memory is free.
const DEFAULT_BYTES: u64 = 8 << 30;

/// Reads cases side by side, as many at a time as half of the free memory takes, or one; in their order.
///
/// # Errors
/// One of them cannot be read.
pub fn read_all<T: Send>(cases: &[&Case], read: impl Fn(&Case) -> Result<T> + Sync) -> Result<Vec<T>> {
    let free = system_bytes("/proc/meminfo", "MemAvailable").unwrap_or(DEFAULT_BYTES);
    let mut all = Vec::with_capacity(cases.len());
    for group in cut(cases, free / 2) {
        let group = group.par_iter().with_max_len(1).map(|case| read(case));
        all.extend(group.collect::<Result<Vec<T>>>()?);
    }
    Ok(all)
}

/// Cuts cases into groups that fit the budget, or are a single case.
fn cut<'a, 'b>(cases: &'a [&'b Case], budget: u64) -> Vec<&'a [&'b Case]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (place, case) in cases.iter().enumerate() {
        let case = case.image.bytes.unwrap_or(0).saturating_mul(TIMES_COMPRESSED);
        if place > start && bytes.saturating_add(case) > budget {
            groups.push(&cases[start..place]);
            (start, bytes) = (place, 0);
        }
        bytes = bytes.saturating_add(case);
    }
    if start < cases.len() {
        groups.push(&cases[start..]);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::manifest::DataFile;

    #[test]
    fn groups_fit_the_budget_or_are_single() {
        let file = |bytes| DataFile {
            path: "x".into(),
            sha256: None,
            bytes: Some(bytes),
            url: None,
        };
        let case = |bytes: u64| Case {
            id: bytes.to_string(),
            site: "A".into(),
            train: true,
            slices: 1,
            image: file(bytes),
            label: file(1),
            patient: None,
            crop: None,
            label_ids: None,
        };
        let cases = [1, 2, 3, 9, 1, u64::MAX, 1].map(case);
        let cases: Vec<&Case> = cases.iter().collect();
        let sizes = |budget: u64| cut(&cases, budget).iter().map(|group| group.len()).collect::<Vec<_>>();
        assert_eq!(sizes(6 * TIMES_COMPRESSED), [3, 1, 1, 1, 1]);
        assert_eq!(sizes(0), [1; 7]);
        assert_eq!(sizes(16 * TIMES_COMPRESSED), [5, 1, 1]);
        assert!(cut(&[], 1).is_empty());
    }
}
