//! Croissant 1.1 (MLCommons): the JSON-LD document in which a manifest describes its data set.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::table::{Column, Kind};

/// A data set's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    #[serde(rename = "@context")]
    context: Value,
    #[serde(rename = "@type")]
    kind: String,
    #[serde(rename = "conformsTo")]
    conforms_to: String,
    /// What is said of the whole data set.
    #[serde(flatten)]
    pub about: About,
    /// Its files.
    pub distribution: Vec<Resource>,
    /// Its tables.
    #[serde(rename = "recordSet")]
    pub record_sets: Vec<RecordSet>,
}

/// What is said of a whole data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Its name, which its folder has too.
    pub name: String,
    /// What it is, and whether it is real.
    pub description: String,
    /// Under which licence it is.
    pub license: Licence,
    /// Where people find it, unless it is made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The release that the checksums belong to.
    pub version: String,
    /// When that release came out: year, or year-month-day.
    pub date_published: String,
    /// What to cite.
    pub cite_as: String,
}

/// Licences by their addresses; those of SPDX's end in the licence's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Licence {
    /// Of all files.
    One(String),
    /// Of some files each.
    Several(Vec<String>),
}

impl Licence {
    /// Their addresses.
    pub fn addresses(&self) -> &[String] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Several(addresses) => addresses,
        }
    }

    /// What they are called.
    pub fn names(&self) -> Vec<&str> {
        self.addresses().iter().map(|address| licence_name(address)).collect()
    }
}

/// What the licence of an address is called: its last part.
pub fn licence_name(address: &str) -> &str {
    address.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Files of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "@type")]
pub enum Resource {
    /// One file with its checksum.
    #[serde(rename = "cr:FileObject")]
    File(FileObject),
    /// Files of one pattern, whose checksums are in the table of cases.
    #[serde(rename = "cr:FileSet")]
    Set(FileSet),
}

/// One file with its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileObject {
    /// Its name in the document, and in the data set's folder.
    #[serde(rename = "@id")]
    pub id: String,
    /// The same.
    pub name: String,
    /// What it holds.
    pub description: String,
    /// Where it is: an address, or a place relative to the document.
    pub content_url: String,
    /// Its size, such as "123 B", where it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_size: Option<String>,
    /// Its media type.
    pub encoding_format: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl FileObject {
    /// The table of cases of this checksum, `NAME.csv` beside the document.
    pub fn cases(name: &str, sha256: &str) -> Self {
        Self {
            id: CASES.into(),
            name: CASES.into(),
            description: "Every case with its site, its split, and size and checksum of its files; a file without a \
                          checksum has none that is published."
                .into(),
            content_url: format!("{name}.csv"),
            content_size: None,
            encoding_format: "text/csv".into(),
            sha256: sha256.into(),
        }
    }

    /// Whether it is the table of cases.
    pub fn is_cases(&self) -> bool {
        self.id == CASES
    }

    /// Its size in bytes, where it is published.
    pub fn bytes(&self) -> Option<u64> {
        self.content_size.as_ref()?.strip_suffix(" B")?.parse().ok()
    }
}

/// What the table of cases is called in the document.
const CASES: &str = "cases";

/// Files of one pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSet {
    /// Its name in the document.
    #[serde(rename = "@id")]
    pub id: String,
    /// The same.
    pub name: String,
    /// What the files are, where they come from, and which of them have a published checksum.
    pub description: String,
    /// Their paths, relative to the data set's folder, as a pattern.
    pub includes: String,
    /// Their media type.
    pub encoding_format: String,
}

impl FileSet {
    /// NIfTI files.
    pub fn nifti(id: &str, description: &str, includes: &str) -> Self {
        Self {
            id: id.into(),
            name: id.into(),
            description: description.into(),
            includes: includes.into(),
            encoding_format: "application/x-nifti".into(),
        }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordSet {
    #[serde(rename = "@type")]
    kind: String,
    /// Its name in the document.
    #[serde(rename = "@id")]
    pub id: String,
    name: String,
    description: String,
    #[serde(rename = "dataType", skip_serializing_if = "Option::is_none")]
    data_type: Option<String>,
    key: Value,
    field: Vec<Value>,
    /// Its rows, where they are in the document itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Map<String, Value>>,
}

impl RecordSet {
    /// A column of a table in the document itself.
    pub fn column(&self, name: &str) -> Option<Vec<String>> {
        let column = format!("{}/{name}", self.id);
        let cell = |row: &Map<String, Value>| row.get(&column)?.as_str().map(str::to_owned);
        self.data.iter().map(cell).collect()
    }

    /// A table in the document itself; its first column is its key.
    pub fn inline<'a, const N: usize>(
        id: &str,
        description: &str,
        columns: [&str; N],
        rows: impl Iterator<Item = [&'a str; N]>,
    ) -> Self {
        let full = |column: &str| format!("{id}/{column}");
        let field =
            |column: &str| json!({"@type": "cr:Field", "@id": full(column), "name": column, "dataType": "sc:Text"});
        let row = |cells: [&str; N]| {
            columns
                .map(full)
                .into_iter()
                .zip(cells.map(|cell| json!(cell)))
                .collect()
        };
        Self {
            kind: "cr:RecordSet".into(),
            id: id.into(),
            name: id.into(),
            description: description.into(),
            data_type: None,
            key: json!({"@id": full(columns[0])}),
            field: columns.into_iter().map(field).collect(),
            data: rows.map(row).collect(),
        }
    }

    /// The table of cases, which is a file of its own, with these columns.
    pub(super) fn cases(columns: &[&Column]) -> Self {
        let field = |column: &&Column| {
            let mut field = json!({
                "@type": "cr:Field",
                "@id": format!("case/{}", column.name),
                "name": column.name,
                "description": column.description,
                "dataType": if column.kind == Kind::Integer { "sc:Integer" } else { "sc:Text" },
                "source": {"fileObject": {"@id": "cases"}, "extract": {"column": column.name}}
            });
            if column.kind == Kind::Listed {
                field["references"] = json!({"field": {"@id": format!("{}/name", column.name)}});
            }
            field
        };
        Self {
            kind: "cr:RecordSet".into(),
            id: "case".into(),
            name: "case".into(),
            description: "One scan with its labels.".into(),
            data_type: None,
            key: json!({"@id": "case/case_id"}),
            field: columns.iter().map(field).collect(),
            data: Vec::new(),
        }
    }

    /// A table of names, in the document itself; of a kind that Croissant knows, where there is one.
    pub fn of_names<'a>(
        id: &str,
        description: &str,
        data_type: Option<&str>,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            data_type: data_type.map(str::to_owned),
            ..Self::inline(id, description, ["name"], names.into_iter().map(|name| [name]))
        }
    }
}

impl Document {
    /// A data set's document.
    pub fn new(about: About, distribution: Vec<Resource>, record_sets: Vec<RecordSet>) -> Self {
        Self {
            context: context(),
            kind: "sc:Dataset".into(),
            conforms_to: "http://mlcommons.org/croissant/1.1".into(),
            about,
            distribution,
            record_sets,
        }
    }
}

/// The context that the Croissant 1.1 specification gives.
fn context() -> Value {
    let mut context = json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "description": {"@container": "@language"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "name": {"@container": "@language"}
    });
    let terms = "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty fileSet \
                 format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex \
                 repeated replace samplingRate separator source subField transform";
    for term in terms.split_whitespace() {
        context[term] = json!(format!("cr:{term}"));
    }
    context
}
