//! A file's bytes in order, and no more of them than its header asks for.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use crate::Error;

/// A file without its gzip, if it has one.
pub(super) enum Unpacked<'a> {
    /// As it is.
    Plain(&'a [u8]),
    /// A gzip's members one after the other. What follows the last one, zeros that fill a block or anything else, is no
    /// part of it.
    Gzip(Box<GzDecoder<&'a [u8]>>),
}

/// How a gzip begins.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

impl<'a> Unpacked<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        match bytes.starts_with(&GZIP) {
            true => Unpacked::Gzip(Box::new(GzDecoder::new(bytes))),
            false => Unpacked::Plain(bytes),
        }
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Plain(bytes) => bytes.read(buffer),
            Unpacked::Gzip(member) => loop {
                let count = member.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                let rest: &[u8] = member.get_ref();
                match rest.starts_with(&GZIP) {
                    true => **member = GzDecoder::new(rest),
                    false => return Ok(0),
                }
            },
        }
    }
}

/// Fills a buffer.
pub(super) fn fill(input: &mut impl Read, buffer: &mut [u8], what: &str) -> Result<(), Error> {
    input.read_exact(buffer).map_err(|why| cut_off(what, why))
}

/// Passes over bytes.
pub(super) fn skip(input: &mut impl Read, bytes: u64, what: &str) -> Result<(), Error> {
    let copied = io::copy(&mut input.take(bytes), &mut io::sink());
    match copied.map_err(|why| cut_off(what, why))? {
        all if all == bytes => Ok(()),
        _ => Err(cut_off(what, io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Reads on until the end, which may be `most` bytes away: a gzip's checksum stands there, and without reading it damage
/// to the voxels would go unseen.
pub(super) fn finish(input: &mut impl Read, most: u64) -> Result<(), Error> {
    let left = io::copy(&mut input.take(most.saturating_add(1)), &mut io::sink());
    match left.map_err(|why| cut_off("checksum", why))? > most {
        false => Ok(()),
        true => Err(Error::format(
            "the NIfTI file",
            "it unpacks to far more than its header says; look into where it comes from",
        )),
    }
}

/// Reads exactly so many bytes, taking memory only as they come.
pub(super) fn take(input: &mut impl Read, bytes: usize) -> Result<Vec<u8>, Error> {
    let mut raw = Vec::new();
    let read = input.take(bytes as u64).read_to_end(&mut raw);
    read.map_err(|why| cut_off("voxel data", why))?;
    if raw.len() < bytes {
        let why = format!("it ends after {} of {bytes} bytes of voxels", raw.len());
        return Err(Error::format(
            "the NIfTI file",
            format!("{why}; fetch or export it again"),
        ));
    }
    Ok(raw)
}

/// Reads what comes, up to so many bytes.
pub(super) fn take_up_to(input: &mut impl Read, most: u64) -> Result<Vec<u8>, Error> {
    let mut rest = Vec::new();
    let read = input.take(most).read_to_end(&mut rest);
    read.map_err(|why| cut_off("voxel data", why))?;
    Ok(rest)
}

fn cut_off(what: &str, why: io::Error) -> Error {
    Error::format(
        "the NIfTI file",
        format!("its {what} is cut off or damaged ({why}); fetch or export it again"),
    )
}
