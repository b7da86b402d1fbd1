//! What travels between sites, as a file: a message, and in its metadata what it is.

use std::collections::HashMap;

use flapsam_model::Error as ModelError;
use flapsam_model::checkpoint::sha256;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the format. Another one is refused.
pub const WIRE: u32 = 1;
/// The metadata's key, as in all files of ours.
const ABOUT: &str = "flapsam_message";

/// What both ends of a line must have in common for a message to mean the same to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// The program's name and version.
    pub program: String,
    /// sha256 of the sources that decide figures.
    pub sources: String,
    /// sha256 of the base checkpoint.
    pub base: String,
    /// sha256 of the settings that decide figures, of the classes and of the seed.
    pub settings: String,
}

impl Agreement {
    /// sha256 of all of it.
    pub fn fingerprint(&self) -> String {
        let Agreement {
            program,
            sources,
            base,
            settings,
        } = self;
        sha256(
            [program, sources, base, settings]
                .map(String::as_str)
                .join("\n")
                .as_bytes(),
        )
    }

    /// In what another one differs, in words.
    pub fn difference(&self, other: &Agreement) -> Option<String> {
        let short = |digits: &str| digits.chars().take(12).collect::<String>();
        let checksums = |what: &str, own: &str, other: &str| {
            (own != other).then(|| format!("it has another {what} ({}, and here {})", short(other), short(own)))
        };
        if self.program != other.program {
            return Some(format!(
                "it is of {}, and this is {}; install the same version at all sites",
                other.program, self.program
            ));
        }
        checksums("build of the program", &self.sources, &other.sources)
            .or_else(|| checksums("base checkpoint", &self.base, &other.base))
            .or_else(|| checksums("experiment", &self.settings, &other.settings))
    }
}

/// What a message may be.
pub trait Kind: Serialize + DeserializeOwned {
    /// In a word.
    const NAME: &'static str;
}

#[derive(Serialize, Deserialize)]
struct Head {
    wire: u32,
    kind: String,
}

#[derive(Serialize, Deserialize)]
struct About<T> {
    #[serde(flatten)]
    head: Head,
    about: T,
}

/// The file of a message: the same tensors, and what it is in the metadata.
pub fn seal<T: Kind>(about: &T, message: &[u8]) -> Vec<u8> {
    let about = About {
        head: Head {
            wire: WIRE,
            kind: T::NAME.to_owned(),
        },
        about,
    };
    // TOML, since it gives floats back to the last bit.
    let text = toml::to_string(&about).expect("what messages say of themselves is plain data");
    let tensors = SafeTensors::deserialize(message).expect("it was encoded here");
    let metadata = HashMap::from([(ABOUT.to_owned(), text)]);
    safetensors::serialize(tensors.iter(), Some(metadata)).expect("writing to memory cannot fail")
}

/// What a file says of itself, and the message in it.
///
/// # Errors
/// It is no file of this kind and version.
pub fn open<T: Kind>(bytes: &[u8]) -> Result<(T, Vec<u8>), ModelError> {
    let refuse = |why: String| ModelError::Format { what: T::NAME, why };
    let tensors = SafeTensors::deserialize(bytes).map_err(|why| refuse(why.to_string()))?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|why| refuse(why.to_string()))?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(ABOUT));
    let text = text.ok_or_else(|| refuse("it is no message of a federation".into()))?;
    let head: Head = toml::from_str(text).map_err(|why| refuse(why.message().to_owned()))?;
    if head.wire != WIRE {
        let why = format!(
            "it is of version {} of the format, and this program has {WIRE}; install the same version at all sites",
            head.wire
        );
        return Err(refuse(why));
    }
    if head.kind != T::NAME {
        return Err(refuse(format!("it is {} of a federation", head.kind)));
    }
    let about: About<T> = toml::from_str(text).map_err(|why| refuse(why.message().to_owned()))?;
    let known = [Dtype::F32, Dtype::F16, Dtype::I8];
    if let Some((key, view)) = tensors.iter().find(|(_, view)| !known.contains(&view.dtype())) {
        return Err(refuse(format!(
            "'{key}' is of type {:?}, and none travels as that",
            view.dtype()
        )));
    }
    let message = safetensors::serialize(tensors.iter(), None).map_err(|why| refuse(why.to_string()))?;
    Ok((about.about, message))
}
