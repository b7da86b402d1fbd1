//! The table of cases: a row each, with what their files can be held against.

use std::path::Path;
use std::str::FromStr;

use flapsam_model::checkpoint::sha256;
use serde::Deserialize;

use super::croissant::FileObject;
use super::{Case, DataFile, check_cases, is_plain_name, stays_inside};
use crate::error::{Error, Result};
use crate::files::read;

/// A column of the table.
pub(super) struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub description: &'static str,
    /// What its cells are.
    pub kind: Kind,
    /// A case's cell; empty where there is nothing to say.
    cell: fn(&Case) -> String,
}

/// What a column's cells are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Words.
    Text,
    /// Whole numbers.
    Integer,
    /// Names that are listed in a record set of the column's name.
    Listed,
}

const fn column(name: &'static str, kind: Kind, description: &'static str, cell: fn(&Case) -> String) -> Column {
    Column {
        name,
        description,
        kind,
        cell,
    }
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// All columns: first those that every table has.
const COLUMNS: [Column; 15] = [
    column("case_id", Kind::Text, "Its name.", |case| case.id.clone()),
    column("site", Kind::Listed, "The client that holds it.", |case| {
        case.site.clone()
    }),
    column("split", Kind::Listed, "What it is for.", |case| {
        if case.train { "train" } else { "test" }.into()
    }),
    column("slices", Kind::Integer, "Number of axial slices.", |case| {
        text(Some(&case.slices).filter(|&&slices| slices > 0))
    }),
    column("image", Kind::Text, "The scan's file.", |case| case.image.path.clone()),
    column("image_sha256", Kind::Text, "The scan's checksum.", |case| {
        text(case.image.sha256.as_ref())
    }),
    column("image_bytes", Kind::Integer, "The scan's size.", |case| {
        text(case.image.bytes.as_ref())
    }),
    column("label", Kind::Text, "The labels' file.", |case| case.label.path.clone()),
    column("label_sha256", Kind::Text, "The labels' checksum.", |case| {
        text(case.label.sha256.as_ref())
    }),
    column("label_bytes", Kind::Integer, "The labels' size.", |case| {
        text(case.label.bytes.as_ref())
    }),
    column(
        "patient",
        Kind::Text,
        "Of whom it is: all cases of a patient are for the same.",
        |case| text(case.patient.as_ref()),
    ),
    column(
        "box",
        Kind::Text,
        "The part of both files that is the case: start:stop in voxels from 0 along each of the file's \
         axes, the stop outside.",
        |case| text(case.crop.as_ref()),
    ),
    column(
        "label_ids",
        Kind::Text,
        "The numbers in the labels' file that make each class, joined by +, classes apart by blanks; all else \
         is background.",
        |case| text(case.label_ids.as_ref()),
    ),
    column(
        "image_url",
        Kind::Text,
        "From where the scan's file is fetched.",
        |case| text(case.image.url.as_ref()),
    ),
    column(
        "label_url",
        Kind::Text,
        "From where the labels' file is fetched.",
        |case| text(case.label.url.as_ref()),
    ),
];
const ALWAYS: usize = 10;

/// The columns of a table of these cases: what no case has anything to say in is left out.
pub(super) fn columns(cases: &[Case]) -> Vec<&'static Column> {
    let told = |(place, column): &(usize, &Column)| {
        *place < ALWAYS || cases.iter().any(|case| !(column.cell)(case).is_empty())
    };
    COLUMNS
        .iter()
        .enumerate()
        .filter(told)
        .map(|(_, column)| column)
        .collect()
}

/// A table of cases, as a file's content.
pub fn table(cases: &[Case]) -> String {
    let columns = columns(cases);
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut write = |row: Vec<String>| {
        table
            .write_record(row)
            .expect("memory takes every row, of equal length");
    };
    write(columns.iter().map(|column| column.name.to_owned()).collect());
    for case in cases {
        write(columns.iter().map(|column| (column.cell)(case)).collect());
    }
    let bytes = table.into_inner().expect("memory takes every write");
    String::from_utf8(bytes).expect("rows are UTF-8")
}

/// A row as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    case_id: String,
    site: String,
    split: Split,
    // As wide as what is added up of all cases never is.
    slices: Option<u32>,
    image: String,
    image_sha256: Option<String>,
    image_bytes: Option<u64>,
    label: String,
    label_sha256: Option<String>,
    label_bytes: Option<u64>,
    patient: Option<String>,
    #[serde(rename = "box")]
    crop: Option<String>,
    label_ids: Option<String>,
    image_url: Option<String>,
    label_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Split {
    Train,
    Test,
}

impl Row {
    fn case(self) -> std::result::Result<Case, String> {
        for file in [&self.image, &self.label] {
            if !stays_inside(file) {
                return Err(format!(
                    "'{file}' leads out of the data set's folder; restore the table from its source"
                ));
            }
        }
        let id = &self.case_id;
        Ok(Case {
            crop: parsed(id, "box", self.crop)?,
            label_ids: parsed(id, "label_ids", self.label_ids)?,
            id: self.case_id,
            site: self.site,
            train: self.split == Split::Train,
            slices: self.slices.unwrap_or(0) as usize,
            image: DataFile {
                path: self.image,
                sha256: self.image_sha256,
                bytes: self.image_bytes,
                url: self.image_url,
            },
            label: DataFile {
                path: self.label,
                sha256: self.label_sha256,
                bytes: self.label_bytes,
                url: self.label_url,
            },
            patient: self.patient,
        })
    }
}

/// What a case's cell says, if it says anything.
fn parsed<T: FromStr<Err: ToString>>(
    case: &str,
    column: &str,
    cell: Option<String>,
) -> std::result::Result<Option<T>, String> {
    let parse = |text: String| {
        text.parse()
            .map_err(|why: T::Err| format!("'{column}' of its case '{case}': {}", why.to_string()))
    };
    cell.map(parse).transpose()
}

/// The cases of a table that was read from `path`.
///
/// # Errors
/// It is no such table.
pub fn parse_cases(path: &Path, table: &[u8]) -> Result<Vec<Case>> {
    let case = |row: std::result::Result<Row, csv::Error>| {
        let row = row.map_err(|why| Error::invalid(path, why))?;
        row.case().map_err(|why| Error::invalid(path, why))
    };
    let cases: Vec<Case> = csv::Reader::from_reader(table)
        .deserialize()
        .map(case)
        .collect::<Result<_>>()?;
    check_cases(path, &cases)?;
    Ok(cases)
}

/// The cases of the table that a manifest names.
pub(super) fn read_table(manifest: &Path, table: &FileObject) -> Result<Vec<Case>> {
    if !is_plain_name(&table.content_url) {
        let why = format!(
            "its table '{}' is not a file beside it; restore the manifest from its source",
            table.content_url
        );
        return Err(Error::invalid(manifest, why));
    }
    let path = manifest.with_file_name(&table.content_url);
    let bytes = read(&path)?;
    let found = sha256(&bytes);
    if found != table.sha256 {
        let why = format!(
            "its sha256 is {found}, the manifest {} says {}; restore it from the repository",
            manifest.display(),
            table.sha256
        );
        return Err(Error::invalid(&path, why));
    }
    parse_cases(&path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "case_id,site,split,slices,image,image_sha256,image_bytes,label,label_sha256,label_bytes,patient,box,\
                        label_ids,image_url,label_url";

    fn parse(rows: &[&str]) -> Result<Vec<Case>> {
        parse_cases(Path::new("t.csv"), format!("{HEAD}\n{}\n", rows.join("\n")).as_bytes())
    }

    fn refusal(rows: &[&str]) -> String {
        parse(rows).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_again_and_empty_columns_are_left_out() {
        let rows = [
            "a-left,A,train,6,a.nii.gz,11,100,a_seg.nii.gz,22,10,p1,0:5 1:9 2:8,48,http://x/a,http://x/s",
            "a-right,A,train,6,a.nii.gz,11,100,a_seg.nii.gz,22,10,p1,5:9 1:9 2:8,46+47,http://x/a,http://x/s",
            "b,A,test,,b.nii.gz,,,b_seg.nii.gz,,,,,,,",
        ];
        let cases = parse(&rows).unwrap();
        assert_eq!(table(&cases), format!("{HEAD}\n{}\n", rows.join("\n")));
        let plain = table(&cases[2..]);
        assert_eq!(
            plain.lines().next(),
            HEAD.split_once(",patient").map(|(always, _)| always)
        );
        assert_eq!(parse_cases(Path::new("t.csv"), plain.as_bytes()).unwrap(), cases[2..]);
    }

    #[test]
    fn boxes_and_ids_that_are_none_are_refused_by_their_cases_name() {
        let row = |part: &str, ids: &str| format!("a,A,train,6,a.nii.gz,,,s.nii.gz,,,,{part},{ids},,");
        for (part, ids, why) in [
            ("0:5 1:9", "1", "'box' of its case 'a': the box '0:5 1:9' has 2 sides"),
            ("0:5 1:9 8:8", "1", "is empty (8:8)"),
            ("0:5 1:9 -2:8", "1", "whole numbers from 0"),
            ("0:5 1:9 2:8", "-1", "'label_ids' of its case 'a': '-1' is no label id"),
            ("0:5 1:9 2:8", "1+2 2", "the label id 2 is named twice"),
            ("0:5 1:9 2:8", "one", "'one' is no label id"),
        ] {
            let said = refusal(&[&row(part, ids)]);
            assert!(said.contains(why) && said.contains("t.csv"), "{part} {ids}: {said}");
        }
    }

    #[test]
    fn a_patient_and_a_scan_are_on_one_side_of_the_split() {
        let row = |id: &str, split: &str, scan: &str, patient: &str, part: &str| {
            format!("{id},A,{split},6,{scan}.nii.gz,{scan},9,{scan}_seg.nii.gz,5{scan},9,{patient},{part},1,,")
        };
        let (left, right) = ("0:5 1:9 2:8", "5:9 1:9 2:8");
        let of = |rows: &[String]| parse(&rows.iter().map(String::as_str).collect::<Vec<_>>());
        // Two boxes of one scan, on one side.
        of(&[row("l", "test", "1", "p", left), row("r", "test", "1", "p", right)]).unwrap();
        // On both sides it is the same scan, whatever the boxes, and whether or not the patient is named.
        for patient in ["p", ""] {
            let said = of(&[
                row("r", "test", "1", patient, right),
                row("l", "train", "1", patient, left),
            ]);
            let said = said.unwrap_err().to_string();
            assert!(
                said.contains("'l' for training and 'r' for testing are the same scan"),
                "{said}"
            );
        }
        // Nobody needs to know its checksum for that; and a copy has another place.
        let unknown = |row: String| row.replace(",1,9,", ",,,");
        let said = of(&[
            unknown(row("l", "train", "1", "", left)),
            unknown(row("r", "test", "1", "", right)),
        ]);
        assert!(said.unwrap_err().to_string().contains("are the same scan (1.nii.gz)"));
        let copy = row("r", "test", "1", "", right).replace("1.nii.gz", "copy.nii.gz");
        let said = of(&[row("l", "train", "1", "", left), copy]).unwrap_err().to_string();
        assert!(said.contains("are the same scan (1)"), "{said}");
        // Another scan of the same patient.
        for patient in ["p", "P"] {
            let said = of(&[row("l", "train", "1", "p", left), row("r", "test", "2", patient, right)]);
            let said = said.unwrap_err().to_string();
            assert!(
                said.contains(&format!(
                    "the patient '{patient}' is for training ('l') and for testing ('r')"
                )),
                "{said}"
            );
        }
        of(&[row("l", "train", "1", "p", left), row("r", "test", "2", "q", right)]).unwrap();
        let said = of(&[row("l", "train", "1", "p", left), row("r", "train", "1", "q", right)]);
        let said = said.unwrap_err().to_string();
        assert!(
            said.contains("'l' of the patient 'p' and 'r' of 'q' are the same scan"),
            "{said}"
        );
        let other = row("r", "train", "1", "p", right).replace(",51,", ",52,");
        let said = of(&[row("l", "train", "1", "p", left), other]).unwrap_err().to_string();
        assert!(
            said.contains("'1_seg.nii.gz' has two checksums, 51 and, at its case 'r', 52"),
            "{said}"
        );
    }
}
