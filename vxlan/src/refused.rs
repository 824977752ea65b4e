//! Why a change was refused.

use std::fmt;

/// Why a change was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The endpoint does not serve this VNI.
    UnknownVni,
    /// The endpoint serves this VNI already.
    VniExists,
    /// An MTU of zero or above [`mtu_most`](crate::mtu_most).
    BadMtu,
    /// An address that can be no endpoint's or no neighbour's: unspecified, port 0, or a group where one host is meant.
    BadAddress,
    /// No epoch to send with, one twice, or more than [`EPOCHS_MOST`](crate::crypt::EPOCHS_MOST).
    BadKeys,
    /// A table is at its bound.
    Full,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownVni => "no such VNI on this endpoint",
            Self::VniExists => "the VNI exists already",
            Self::BadMtu => "the MTU must be at least 1 byte and no more than a datagram holds",
            Self::BadKeys => "want one or two keys of different epochs, one of which is sent with",
            Self::BadAddress => "the address can be no endpoint's or neighbour's",
            Self::Full => "the table is full",
        })
    }
}

impl std::error::Error for Refused {}
