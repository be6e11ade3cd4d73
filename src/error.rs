//! One error type for the whole crate: a kind that says what the caller can do, a message that says what happened to what,
//! and, where there is one, the way out.

use std::fmt;

/// What the caller can do about an [`Error`]. Also decides the exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong (SQL, option, name, file content): fix it and call again. Nothing was written.
    Input,
    /// The thing named does not exist (topic, partition, offset, run).
    NotFound,
    /// The record was there and was removed, by hand or by retention: read on from the first that is left, which the message names.
    Gone,
    /// The thing exists already, or is held by somebody else in a way that the caller must resolve (`--as`, `--restart`).
    Conflict,
    /// Two results that must be equal are not, or rows were rejected under `--strict`.
    Difference,
    /// Bytes on disk do not match their checksums. The message names file, topic, partition and offsets.
    Damage,
    /// Disk, lock or operating system refused. May succeed later, after the cause has been removed.
    Unavailable,
    /// A write or sync failed after it was issued: the records may or may not be in the log. Read before trying again.
    Unknown,
    /// The log or the job was shut down.
    Closed,
    /// A bug in Kappa: please report it.
    Internal,
}

impl ErrorKind {
    /// The process exit code for this kind: 1 difference, 2 wrong input, 3 damage, 4 could not.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Difference => 1,
            ErrorKind::Input | ErrorKind::NotFound | ErrorKind::Gone | ErrorKind::Conflict => 2,
            ErrorKind::Damage => 3,
            ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Closed | ErrorKind::Internal => 4,
        }
    }
}

/// A place in a text file that the user wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePlace {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    place: Option<SourcePlace>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// An error of Kappa: [`kind`](Error::kind), message, and optionally a place in the user's file, a hint and a cause.
#[derive(Debug)]
pub struct Error(Box<Inner>);

/// `Result` with Kappa's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A new error of a kind, with a message that says what happened and to what.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), place: None, hint: None, source: None }))
    }

    /// Short for [`ErrorKind::Input`].
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    /// Short for [`ErrorKind::Damage`].
    pub fn damage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damage, message)
    }

    /// Short for [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An I/O error with what was being done and to which file, as [`ErrorKind::Unavailable`].
    pub fn io(what: impl fmt::Display, path: &std::path::Path, cause: std::io::Error) -> Self {
        Self::new(ErrorKind::Unavailable, format!("{what} {}: {cause}", path.display())).with_source(cause)
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the place in the user's file.
    #[must_use]
    pub fn with_place(mut self, place: SourcePlace) -> Self {
        self.0.place = Some(place);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts what was being done in front of the message; kind, place, hint and cause stay.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message, without place and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The place in the user's file, if the error has one.
    pub fn place(&self) -> Option<&SourcePlace> {
        self.0.place.as_ref()
    }

    /// What the user can do, if known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}
