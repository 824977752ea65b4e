//! Names of sandboxes, as data: what a network's resolver knows, what it answers, and the files that
//! a sandbox finds in its /etc.

mod answer;
mod files;
pub(crate) mod options;
mod zone;

pub use answer::{Asked, Handled, Transport, handle, is_failure, is_truncated, reply_refused, reply_servfail};
pub use files::{Files, Surroundings, nameservers};
pub use options::{AddHost, HostAddress, Link, NameOptions};
pub use zone::Zone;

#[cfg(test)]
mod tests;
