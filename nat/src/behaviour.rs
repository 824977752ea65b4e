//! How a network's translation behaves towards its peers, in the words of RFC 4787.

use std::{fmt, str::FromStr};

use packet::Duration;

/// On what of the outside end a decision depends (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// On nothing of it.
    EndpointIndependent,
    /// On its address.
    Address,
    /// On its address and port.
    AddressAndPort,
}

/// What a network's translation does where the RFCs leave a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// When an inside end keeps its external one.
    pub mapping: Dependence,
    /// Who outside may send to a mapping.
    pub filtering: Dependence,
    /// Tries the inside port first (RFC 4787 section 4.2.1); else any free one of the range, at random.
    pub port_preservation: bool,
    /// UDP ports stay even or odd (RFC 4787 section 4.2.2).
    pub parity: bool,
    /// Mappings that one inside address may have (RFC 6888 REQ-4).
    pub ports_per_host: u32,
    /// How long an external port rests before somebody else gets it (RFC 6888 REQ-8).
    pub hold_down: Duration,
}

/// Names of presets, as users write them.
pub const PRESETS: [&str; 5] = ["full-cone", "restricted", "port-restricted", "symmetric", "cgnat"];

impl Behaviour {
    const fn cone(filtering: Dependence) -> Self {
        Self {
            mapping: Dependence::EndpointIndependent,
            filtering,
            port_preservation: true,
            parity: true,
            ports_per_host: 32_768,
            hold_down: Duration::ZERO,
        }
    }

    /// Whoever learns of a mapping may use it.
    pub const FULL_CONE: Self = Self::cone(Dependence::EndpointIndependent);
    /// Addresses that were sent to may use it.
    pub const RESTRICTED: Self = Self::cone(Dependence::Address);
    /// Ends that were sent to may use it: the strictest that still lets peers meet by hole punching.
    pub const PORT_RESTRICTED: Self = Self::cone(Dependence::AddressAndPort);
    /// Each destination sees another port, drawn at random.
    pub const SYMMETRIC: Self = Self { mapping: Dependence::AddressAndPort, port_preservation: false, parity: false, ..Self::PORT_RESTRICTED };
    /// RFC 6888: open to peers (REQ-7), with a share for each subscriber (REQ-4) and ports that rest (REQ-8).
    pub const CGNAT: Self = Self { port_preservation: false, ports_per_host: 1024, hold_down: Duration::from_secs(120), ..Self::FULL_CONE };
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::PORT_RESTRICTED
    }
}

/// A word that names no preset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchPreset(String);

impl fmt::Display for NoSuchPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no NAT behaviour {:?}: there are {}", self.0, PRESETS.join(", "))
    }
}

impl std::error::Error for NoSuchPreset {}

impl FromStr for Behaviour {
    type Err = NoSuchPreset;

    fn from_str(word: &str) -> Result<Self, NoSuchPreset> {
        match word {
            "full-cone" => Ok(Self::FULL_CONE),
            "restricted" => Ok(Self::RESTRICTED),
            "port-restricted" => Ok(Self::PORT_RESTRICTED),
            "symmetric" => Ok(Self::SYMMETRIC),
            "cgnat" => Ok(Self::CGNAT),
            _ => Err(NoSuchPreset(word.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_its_name() {
        assert!(PRESETS.iter().all(|name| name.parse::<Behaviour>().is_ok()));
        assert_eq!("hard".parse::<Behaviour>().unwrap_err().to_string(), "no NAT behaviour \"hard\": there are full-cone, restricted, port-restricted, symmetric, cgnat");
    }
}
