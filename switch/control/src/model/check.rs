//! Names and sizes that the kernel and Docker allow.

use crate::{error::Result, model::invalid};

/// Smallest MTU: RFC 791's 68 bytes.
const MTU_MIN: u32 = 68;
/// Largest MTU: what a TAP takes (65535 less an Ethernet header).
const MTU_MAX: u32 = 65_521;

pub(crate) fn check_object_name(kind: &str, name: &str) -> Result<()> {
    let legal = name.len() <= 128
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if legal { Ok(()) } else { Err(invalid(name, format!("invalid {kind} name {name:?}: want [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 128"))) }
}

pub(crate) fn check_ifname(name: &str) -> Result<()> {
    let legal = (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if legal { Ok(()) } else { Err(invalid(name, format!("invalid interface name {name:?}: want 1 to 15 bytes without `/`, `:` or blanks"))) }
}

pub(super) fn check_mtu(mtu: u32) -> Result<u32> {
    if (MTU_MIN..=MTU_MAX).contains(&mtu) { Ok(mtu) } else { Err(invalid(mtu.to_string(), format!("MTU {mtu} is outside {MTU_MIN} to {MTU_MAX}"))) }
}
