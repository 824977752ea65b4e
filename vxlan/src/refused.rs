//! Why a change was refused.

use std::fmt;

/// Why a change was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The endpoint does not serve this VNI.
    UnknownVni,
    /// The endpoint serves this VNI already.
    VniExists,
    /// An MTU of zero or above [`MTU_MOST`](crate::MTU_MOST).
    BadMtu,
    /// An address that can be no endpoint's or no neighbour's: unspecified, port 0, or a group where one host is meant.
    BadAddress,
    /// A table is at its bound.
    Full,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownVni => "no such VNI on this endpoint",
            Self::VniExists => "the VNI exists already",
            Self::BadMtu => "the MTU must be between 1 and 65485 bytes",
            Self::BadAddress => "the address can be no endpoint's or neighbour's",
            Self::Full => "the table is full",
        })
    }
}

impl std::error::Error for Refused {}
