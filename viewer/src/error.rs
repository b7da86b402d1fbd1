use flapsam_model::Error as ModelError;

/// Why something could not be done: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not the one that was promised.
    #[error("{file} has the sha256 {found}, not {expected}: it was changed or cut off; fetch it again")]
    Checksum {
        /// Which file.
        file: &'static str,
        /// Its sha256.
        found: String,
        /// The promised one.
        expected: String,
    },
    /// A file's content does not fit.
    #[error("{file}: {source}")]
    Content {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The device is too small.
    #[error("{0}")]
    Limit(String),
    /// The page's own memory is too small, whatever the device.
    #[error("{0}")]
    Memory(String),
    /// There is no such device, or it stopped.
    #[error("{0}")]
    Device(String),
    /// The page asked for something that does not exist: a mistake of the page.
    #[error("{0}")]
    Request(String),
}

impl Error {
    /// One word for the page, to choose the way on that it offers.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Checksum { .. } => "checksum",
            Error::Content { .. } => "file",
            Error::Limit(_) => "limit",
            Error::Memory(_) => "memory",
            Error::Device(_) => "device",
            Error::Request(_) => "request",
        }
    }

    pub(crate) fn content(file: &'static str) -> impl FnOnce(ModelError) -> Self {
        move |source| match source {
            ModelError::Device(_) => Error::Device(source.to_string()),
            _ => Error::Content { file, source },
        }
    }
}
