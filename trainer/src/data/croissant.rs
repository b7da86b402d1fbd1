//! Croissant 1.1 (MLCommons): the JSON-LD document in which a manifest describes its data set.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

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
    /// The licence's address.
    pub license: String,
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

/// Files of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "@type")]
pub enum Resource {
    /// One file with its checksum.
    #[serde(rename = "cr:FileObject", rename_all = "camelCase")]
    File {
        /// Its name in the document.
        #[serde(rename = "@id")]
        id: String,
        /// The same.
        name: String,
        /// What it holds.
        description: String,
        /// Where it is, relative to the document.
        content_url: String,
        /// Its media type.
        encoding_format: String,
        /// Lower-case hexadecimal.
        sha256: String,
    },
    /// Files of one pattern, whose checksums are in the table of cases.
    #[serde(rename = "cr:FileSet")]
    Set(FileSet),
}

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
    /// The names in a table of names.
    pub fn names(&self) -> Option<Vec<String>> {
        let column = format!("{}/name", self.id);
        let name = |row: &Map<String, Value>| row.get(&column)?.as_str().map(str::to_owned);
        self.data.iter().map(name).collect()
    }

    /// A table of names, in the document itself.
    fn of_names(id: &str, description: &str, data_type: Option<&str>, names: &[String]) -> Self {
        let column = format!("{id}/name");
        let row = |name: &String| Map::from_iter([(column.clone(), json!(name))]);
        Self {
            kind: "cr:RecordSet".into(),
            id: id.into(),
            name: id.into(),
            description: description.into(),
            data_type: data_type.map(str::to_owned),
            key: json!({"@id": column}),
            field: vec![json!({"@type": "cr:Field", "@id": column, "name": "name", "dataType": "sc:Text"})],
            data: names.iter().map(row).collect(),
        }
    }
}

impl Document {
    /// The document of a data set whose cases are in the table `NAME.csv` of this checksum.
    pub fn new(about: About, sets: &[FileSet], sites: &[String], classes: &[String], table_sha256: &str) -> Self {
        let table = Resource::File {
            id: "cases".into(),
            name: "cases".into(),
            description: "Every case with its site, its split, and size and checksum of its files; a file without a \
                          checksum has none that is published."
                .into(),
            content_url: format!("{}.csv", about.name),
            encoding_format: "text/csv".into(),
            sha256: table_sha256.into(),
        };
        let splits = ["train", "test"].map(str::to_owned);
        Self {
            context: context(),
            kind: "sc:Dataset".into(),
            conforms_to: "http://mlcommons.org/croissant/1.1".into(),
            about,
            distribution: std::iter::once(table)
                .chain(sets.iter().cloned().map(Resource::Set))
                .collect(),
            record_sets: vec![
                cases(),
                RecordSet::of_names("site", "The clients of the federation.", None, sites),
                RecordSet::of_names("split", "What a case is for.", Some("cr:Split"), &splits),
                RecordSet::of_names("class", "What the labels mean, counted from 0.", None, classes),
            ],
        }
    }
}

/// The table of cases, which is a file of its own.
fn cases() -> RecordSet {
    let field = |column: &str, description: &str, kind: &str| {
        json!({
            "@type": "cr:Field",
            "@id": format!("case/{column}"),
            "name": column,
            "description": description,
            "dataType": kind,
            "source": {"fileObject": {"@id": "cases"}, "extract": {"column": column}}
        })
    };
    let reference = |column: &str, description: &str| {
        let mut field = field(column, description, "sc:Text");
        field["references"] = json!({"field": {"@id": format!("{column}/name")}});
        field
    };
    RecordSet {
        kind: "cr:RecordSet".into(),
        id: "case".into(),
        name: "case".into(),
        description: "One scan with its labels.".into(),
        data_type: None,
        key: json!({"@id": "case/case_id"}),
        field: vec![
            field("case_id", "Its name.", "sc:Text"),
            reference("site", "The client that holds it."),
            reference("split", "What it is for."),
            field("slices", "Number of axial slices.", "sc:Integer"),
            field("image", "The scan's file.", "sc:Text"),
            field("image_sha256", "The scan's checksum.", "sc:Text"),
            field("label", "The labels' file.", "sc:Text"),
            field("label_sha256", "The labels' checksum.", "sc:Text"),
        ],
        data: Vec::new(),
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
