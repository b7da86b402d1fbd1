//! Which numbers of a label map make which class.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use flapsam_model::Error as ModelError;
use flapsam_model::volume::Volume;

use crate::error::{Error, Result};

/// The largest id: whole numbers up to it can be told apart in the 32-bit floats that voxels are.
const LARGEST: u32 = 1 << 24;

/// The ids that make each class, those of the first foreground class first. All others are background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelIds(Vec<BTreeSet<u32>>);

impl LabelIds {
    /// Ids as they are written, one text a class, joined by `+`: `1+2`.
    ///
    /// # Errors
    /// One is no whole number from 1, or is named twice, or there is none.
    pub fn new<'a>(classes: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for text in classes {
            let mut own = BTreeSet::new();
            for id in text.split('+') {
                let id = id_of(id)?;
                if !seen.insert(id) {
                    let why =
                        format!("the label id {id} is named twice, and is of one class only; leave one of them out");
                    return Err(Error::Message(why));
                }
                own.insert(id);
            }
            all.push(own);
        }
        match all.is_empty() {
            true => id_of("").map(|_| Self(all)),
            false => Ok(Self(all)),
        }
    }

    /// Of how many foreground classes.
    pub fn classes(&self) -> usize {
        self.0.len()
    }

    /// All ids.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flatten().copied()
    }

    /// Puts in place of each id the number of its class, and 0 in place of all others.
    ///
    /// # Errors
    /// A value is no id.
    pub fn to_classes(&self, labels: &mut Volume) -> std::result::Result<(), ModelError> {
        let most = self.ids().max().unwrap_or_default() as usize;
        let mut class_of = vec![0.0; most + 1];
        for (place, ids) in self.0.iter().enumerate() {
            ids.iter().for_each(|&id| class_of[id as usize] = (place + 1) as f32);
        }
        for value in &mut labels.voxels {
            if value.fract() != 0.0 || !(0.0..=LARGEST as f32).contains(value) {
                return Err(ModelError::Volume(format!(
                    "it holds {value}, and label ids are whole numbers from 0 to {LARGEST}; is it a scan?"
                )));
            }
            *value = class_of.get(*value as usize).copied().unwrap_or(0.0);
        }
        Ok(())
    }
}

/// The ids that a label map holds, the background among them.
pub fn held(labels: &Volume) -> BTreeSet<u32> {
    let mut held = BTreeSet::new();
    let mut last = None;
    for &value in &labels.voxels {
        // Neighbours are mostly alike.
        if last != Some(value) && value.fract() == 0.0 && value >= 0.0 {
            held.insert(value as u32);
            last = Some(value);
        }
    }
    held
}

fn id_of(text: &str) -> Result<u32> {
    let refuse = |why: &str| {
        Err(Error::Message(format!(
            "'{text}' {why}; label ids are whole numbers from 1 to {LARGEST}, joined by + within a class, such as 1+2"
        )))
    };
    match text.parse::<u32>() {
        _ if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) => refuse("is no label id"),
        Ok(0) => refuse("is the background"),
        Ok(id) if id <= LARGEST => Ok(id),
        _ => refuse("is too large for a label id"),
    }
}

impl FromStr for LabelIds {
    type Err = Error;

    /// As a table has them, classes apart by blanks: `1+2 3`.
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text.split_whitespace())
    }
}

impl fmt::Display for LabelIds {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let class = |ids: &BTreeSet<u32>| ids.iter().map(u32::to_string).collect::<Vec<_>>().join("+");
        formatter.write_str(&self.0.iter().map(class).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFFINE: [[f64; 4]; 3] = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];

    #[test]
    fn ids_become_classes_and_all_else_background() {
        let ids: LabelIds = "47+48 1004".parse().unwrap();
        assert_eq!((ids.classes(), ids.to_string().as_str()), (2, "47+48 1004"));
        let mut labels = Volume::new([7, 1, 1], vec![0.0, 1.0, 47.0, 48.0, 1004.0, 1005.0, 255.0], AFFINE);
        assert_eq!(held(&labels), [0, 1, 47, 48, 255, 1004, 1005].into());
        ids.to_classes(&mut labels).unwrap();
        assert_eq!(labels.voxels, [0.0, 0.0, 1.0, 1.0, 2.0, 0.0, 0.0]);
        for value in [-1.0, 0.5, f32::NAN, f32::INFINITY, 3e7] {
            let mut labels = Volume::new([1, 1, 1], vec![value], AFFINE);
            let said = ids.to_classes(&mut labels).unwrap_err().to_string();
            assert!(said.contains("is it a scan?"), "{said}");
        }
    }

    #[test]
    fn ids_that_are_none_are_refused() {
        for (text, why) in [
            ("", "is no label id"),
            ("1+", "'' is no label id"),
            ("-1", "'-1' is no label id"),
            ("1.5", "'1.5' is no label id"),
            ("1,2", "'1,2' is no label id"),
            ("left", "'left' is no label id"),
            ("0", "'0' is the background"),
            ("16777217", "too large"),
            ("99999999999999999999", "too large"),
            ("1+1", "the label id 1 is named twice"),
            ("1+2 2", "the label id 2 is named twice"),
            ("1 01", "the label id 1 is named twice"),
        ] {
            let said = text.parse::<LabelIds>().unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
