//! Files that are something else than their names say.

/// What a file is that was taken for a scan or a checkpoint, and what to do about it; `None` where that is not known.
pub fn recognise(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    let at = |place: usize, mark: &[u8]| bytes.get(place..).is_some_and(|rest| rest.starts_with(mark));
    let kinds: [(bool, &str); 9] = [
        (
            at(128, b"DICM"),
            "it is a DICOM file; convert its series to NIfTI, for example with dcm2niix",
        ),
        (
            at(0, b"\x1f\x8b"),
            "it is gzipped once more than its name says; unpack it once (gunzip) and try again",
        ),
        (
            text.starts_with(b"version https://git-lfs."),
            "it is a pointer of Git LFS, not the file itself; run 'git lfs pull' where it came from",
        ),
        (
            text.starts_with(b"/annex/objects/") || text.starts_with(b"../.git/annex/"),
            "it is a pointer of git-annex, not the file itself; run 'git annex get' where it came from",
        ),
        (
            text.starts_with(b"<"),
            "it is a web page, not the file; open its address in a browser, log in or accept the terms there, and \
             download it again",
        ),
        (
            text.starts_with(b"{") && !at(8, b"{"),
            "it is JSON, perhaps a server's refusal; look into it and download the file again",
        ),
        (
            at(0, b"NRRD000"),
            "it is NRRD; convert it to NIfTI, for example with 3D Slicer",
        ),
        (
            text.starts_with(b"ObjectType") || text.starts_with(b"NDims"),
            "it is MetaImage; convert it to NIfTI, for example with 3D Slicer",
        ),
        (
            at(0, b"\x89PNG") || at(0, b"\xff\xd8\xff"),
            "it is a picture; pass the scan itself",
        ),
    ];
    kinds.into_iter().find_map(|(is, what)| is.then_some(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_for_a_scan_is_named() {
        let mut dicom = vec![0; 200];
        dicom[128..132].copy_from_slice(b"DICM");
        let named = |bytes: &[u8]| recognise(bytes).unwrap_or_default();
        assert!(named(&dicom).contains("dcm2niix"));
        assert!(named(b"\x1f\x8b\x08").contains("gunzip"));
        assert!(named(b"version https://git-lfs.github.com/spec/v1\noid").contains("git lfs pull"));
        assert!(named(b"/annex/objects/MD5E-s1--0.nii.gz\n").contains("git annex get"));
        assert!(named(b"\xef\xbb\xbf\r\n <!DOCTYPE html>").contains("log in"));
        assert!(named(b"{\"error\": \"not found\"}").contains("refusal"));
        assert!(named(b"NRRD0005\n").contains("NRRD"));
        assert!(named(b"ObjectType = Image").contains("MetaImage"));
        assert!(named(b"\x89PNG\r\n").contains("picture"));
        // A NIfTI header of either order, a safetensors file, and too little to say.
        for bytes in [&b"\x5c\x01\0\0"[..], b"\0\0\x01\x5c", b"\x10\0\0\0\0\0\0\0{\"a\"", b""] {
            assert_eq!(recognise(bytes), None);
        }
    }
}
