//! A request that cannot be met: what, where, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Stable codes, mapped to each protocol at its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No such thing.
    NotFound,
    /// The name is taken.
    Exists,
    /// Not possible while something else is as it is.
    Conflict,
    /// Something else uses it.
    InUse,
    /// The request makes no sense.
    Invalid,
    /// A pool or limit is used up.
    Exhausted,
    /// The system refused.
    Unavailable,
    /// There is no such program.
    CommandNotFound,
    /// The program is there, and does not start.
    CannotExecute,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlError {
    /// Which kind.
    pub code: Code,
    /// For people.
    pub message: String,
    /// What it is about.
    pub subject: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, ControlError>;

impl ControlError {
    /// An error about `subject`.
    #[must_use]
    pub fn new(code: Code, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), subject: subject.into(), hint: None }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ControlError {}
