//! Whether a file has what it claims. The `dicom` crates make room for a value before they read it: a kilobyte that claims four
//! gigabytes would get them.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use dicom_core::{Length, VR};
use dicom_encoding::decode::{Decode as _, file_header_decoder};
use dicom_encoding::transfer_syntax::{Codec, TransferSyntax, TransferSyntaxIndex as _};
use dicom_object::FileMetaTable;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_parser::stateful::decode::DynStatefulDecoder;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

/// Where a file says that it is DICOM, after its preamble.
const MAGIC: u64 = 128;
/// And the first of the elements that the file says of itself, which says how long the others are.
const META: u64 = MAGIC + 4;
/// What deflate makes of a byte at most.
const MOST_INFLATED: u64 = 1032;

/// Whether a file can be read to its end, and no value claims to be longer than the file; what is no DICOM file claims nothing.
pub(super) fn fit(path: &Path) -> bool {
    judged(path).unwrap_or(true)
}

fn judged(path: &Path) -> Option<bool> {
    let mut file = BufReader::new(File::open(path).ok()?);
    let length = file.get_ref().metadata().ok()?.len();
    if !meta_fits(&mut file, length)? {
        return Some(false);
    }
    file.seek(SeekFrom::Start(MAGIC)).ok()?;
    let meta = FileMetaTable::from_reader(&mut file).ok()?;
    let syntax = TransferSyntaxRegistry.get(meta.transfer_syntax())?;
    match syntax.codec() {
        Codec::Dataset(Some(deflated)) => {
            let mut inflated = Vec::new();
            let most = length.saturating_mul(MOST_INFLATED);
            let mut source = deflated.adapt_reader(Box::new(file)).take(most);
            source.read_to_end(&mut inflated).ok()?;
            let length = inflated.len() as u64;
            all_fit(Cursor::new(inflated), syntax, length)
        }
        _ => all_fit(file, syntax, length),
    }
}

/// Whether that holds for what a file says of itself. As in the crate that reads it, the last of these elements is whichever
/// begins within the length of all, however far it goes.
fn meta_fits(file: &mut (impl Read + Seek), length: u64) -> Option<bool> {
    file.seek(SeekFrom::Start(META)).ok()?;
    let mut first = [0; 12];
    file.read_exact(&mut first).ok()?;
    let [.., a, b, c, d] = first;
    let others = u64::from(u32::from_le_bytes([a, b, c, d]));
    let mut read = 0;
    while read < others {
        let (header, bytes) = file_header_decoder().decode_header(file).ok()?;
        let claimed = u64::from(header.len.get()?);
        if claimed > length {
            return Some(false);
        }
        file.seek_relative(i64::try_from(claimed).ok()?).ok()?;
        read += bytes as u64 + claimed;
    }
    Some(true)
}

/// Whether every element claims no more than `length` bytes, and whole values.
fn all_fit(source: impl Read + Seek, syntax: &TransferSyntax, length: u64) -> Option<bool> {
    let mut reader = LazyDataSetReader::<DynStatefulDecoder<_>>::new_with_ts(source, syntax).ok()?;
    while let Some(token) = reader.advance() {
        let Ok(token) = token else { return Some(false) };
        let (claimed, unit) = match &token {
            LazyDataToken::ElementHeader(header) | LazyDataToken::LazyValue { header, .. } => {
                (header.len, bytes_of_one(header.vr))
            }
            LazyDataToken::SequenceStart { len, .. } | LazyDataToken::ItemStart { len } => (*len, 1),
            LazyDataToken::LazyItemValue { len, .. } => (Length(*len), 1),
            _ => continue,
        };
        // Of a broken number the reader leaves the rest, which it then takes for the next element.
        let fits = |claimed: u32| u64::from(claimed) <= length && claimed.is_multiple_of(unit);
        if !claimed.get().is_none_or(fits) {
            return Some(false);
        }
        if token.skip().is_err() {
            break;
        }
    }
    Some(true)
}

/// How many bytes one number of this kind takes; one where it is no number.
fn bytes_of_one(kind: VR) -> u32 {
    match kind {
        VR::OW | VR::SS | VR::US => 2,
        VR::AT | VR::FL | VR::OF | VR::OL | VR::SL | VR::UL => 4,
        VR::FD | VR::OD | VR::OV | VR::SV | VR::UV => 8,
        _ => 1,
    }
}
