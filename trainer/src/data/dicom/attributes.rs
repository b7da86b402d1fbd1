//! Values of a DICOM object, wherever it keeps them.

use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use crate::error::{Error, Result};

/// The attributes of one image: those of its file, or of its frame in a file of many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a> {
    pub path: &'a Path,
    pub object: &'a InMemDicomObject,
    /// From 0.
    pub frame: usize,
}

impl Attributes<'_> {
    /// Numbers of an attribute, which files of many frames keep in a group: the frame's own before that of all frames.
    pub fn numbers(&self, tag: Tag, group: Tag) -> Option<Vec<f64>> {
        let shared = item(self.object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0);
        let own = item(self.object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, self.frame);
        let groups = [own, shared].into_iter().flatten();
        let places = groups.filter_map(|groups| item(groups, group, 0));
        let places = std::iter::once(self.object).chain(places);
        places
            .filter_map(|object| object.get(tag)?.to_multi_float64().ok())
            .find(|numbers| !numbers.is_empty())
    }

    /// As many numbers as are needed, all of them finite.
    ///
    /// # Errors
    /// The image lacks them.
    pub fn needed<const N: usize>(&self, tag: Tag, group: Tag, name: &str) -> Result<[f64; N]> {
        let numbers = self.numbers(tag, group).unwrap_or_default();
        let finite = numbers.iter().all(|number| number.is_finite());
        let numbers = <[f64; N]>::try_from(numbers).ok().filter(|_| finite);
        numbers.ok_or_else(|| {
            let why = format!("its {name} is not {N} numbers; export the series again, or as NIfTI");
            Error::invalid(self.path, why)
        })
    }
}

/// An item of a sequence.
fn item(object: &InMemDicomObject, sequence: Tag, index: usize) -> Option<&InMemDicomObject> {
    object.get(sequence)?.items()?.get(index)
}

/// The text of an attribute, without what pads it; `None` where there is none.
pub(super) fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = object.get(tag)?.to_str().ok()?;
    let text = text.trim_matches(|letter: char| letter == '\0' || letter.is_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

/// The whole number of an attribute.
pub(super) fn count(object: &InMemDicomObject, tag: Tag) -> Option<usize> {
    object.get(tag)?.to_int().ok()
}
