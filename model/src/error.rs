/// What can be wrong with bytes or settings from outside. Callers that know the path put it in front.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not of the format they claim to be.
    #[error("{what} cannot be read: {why}")]
    Format {
        /// Of what they claim to be.
        what: &'static str,
        /// What is wrong with them.
        why: String,
    },
    /// A checkpoint or adapter lacks a parameter that the network needs.
    #[error("the parameter '{key}' is missing; check that the file belongs to a {network} and is complete")]
    MissingParameter {
        /// Its name.
        key: String,
        /// The network.
        network: String,
    },
    /// A parameter has another shape than the network needs.
    #[error(
        "the parameter '{key}' has the shape {found:?} where the network needs {expected:?}; check model, image size, classes and rank"
    )]
    Shape {
        /// Its name.
        key: String,
        /// The network's.
        expected: Vec<usize>,
        /// The file's.
        found: Vec<usize>,
    },
    /// A parameter that the network does not have.
    #[error("the parameter '{key}' has no place in this network; check classes, rank and method")]
    UnknownParameter {
        /// Its name.
        key: String,
    },
    /// A value that half precision does not hold.
    #[error("the parameter '{key}' holds {value}, beyond the 65504 of f16; use this checkpoint in f32")]
    BeyondF16 {
        /// The parameter's name.
        key: String,
        /// The value.
        value: f32,
    },
    /// The adapter was trained on another base checkpoint.
    #[error(
        "the adapter was made for the base checkpoint with sha256 {adapter}, not for {base}; pass the base that its run names"
    )]
    OtherBase {
        /// sha256 of the base that the adapter names.
        adapter: String,
        /// That of the base which is there.
        base: String,
    },
    /// A volume that the operation cannot take.
    #[error("{0}")]
    Volume(String),
    /// A number that is none, or beyond all bounds.
    #[error("{what} is {value}, no finite number; look for absurd values in the scan and in the weights")]
    NotFinite {
        /// Where it stands.
        what: String,
        /// The number.
        value: f32,
    },
    /// The device that computes does not answer.
    #[error("the device does not answer ({0}); its memory may be full, or its driver has stopped")]
    Device(String),
    /// A setting out of its range.
    #[error("{0}")]
    Config(String),
}

impl Error {
    pub(crate) fn format(what: &'static str, why: impl std::fmt::Display) -> Self {
        Error::Format {
            what,
            why: why.to_string(),
        }
    }
}
