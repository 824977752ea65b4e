//! What failed, on what, and what to do about it.

use std::{fmt, io};

use nix::errno::Errno;

/// A step that the system refused, or a value that cannot be right.
#[derive(Debug)]
pub struct SetupError {
    /// The step, e.g. `create TAP eth0`.
    pub what: String,
    /// Why it failed.
    pub cause: io::Error,
    /// What to do, when we know.
    pub hint: Option<&'static str>,
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, SetupError>;

impl SetupError {
    pub(crate) fn new(what: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        let cause = cause.into();
        let hint = cause.raw_os_error().and_then(|errno| hint(Errno::from_raw(errno)));
        Self { what: what.into(), cause, hint }
    }

    /// A value that was refused before anything was done.
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), cause: io::Error::new(io::ErrorKind::InvalidInput, why.into()), hint: None }
    }

    /// The system's error number, if it was the system.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.cause)?;
        if let Some(hint) = self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for SetupError {}

fn hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EPERM | Errno::EACCES if !nix::unistd::geteuid().is_root() => Some("needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root, or `weft daemon --rootless`"),
        Errno::EMFILE | Errno::ENFILE => Some("too many open files: raise `ulimit -n`"),
        Errno::EEXIST => Some("the name is taken: choose another, or remove what holds it"),
        Errno::ENODEV => Some("no such device in that namespace"),
        _ => None,
    }
}

/// Names the step of a failed call.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| SetupError::new(what(), error))
    }
}
