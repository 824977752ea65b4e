//! Identifiers. Illegal values do not exist; a stale id never names a new thing.

use std::fmt;

macro_rules! generational_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            index: u32,
            generation: u32,
        }

        impl $name {
            /// Slot `index` in its `generation`-th use. Only the owner of the slots makes these.
            #[must_use]
            pub const fn new(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }

            /// Slot in the owner's table.
            #[must_use]
            pub const fn index(self) -> usize {
                self.index as usize
            }

            /// How many times the slot was given out before.
            #[must_use]
            pub const fn generation(self) -> u32 {
                self.generation
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}.{}", $letter, self.index, self.generation)
            }
        }
    };
}

generational_id!(
    /// An attachment point of a bridge.
    PortId, "p"
);
generational_id!(
    /// One broadcast domain of the data plane.
    NetworkId, "n"
);
generational_id!(
    /// A sandbox's membership in a network.
    EndpointId, "e"
);
generational_id!(
    /// A running capture.
    CaptureId, "c"
);

/// An 802.1Q VLAN identifier, 1..=4094 (IEEE 802.1Q 9.6: 0 is "priority only", 4095 reserved).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// `None` outside 1..=4094.
    #[must_use]
    pub const fn new(vid: u16) -> Option<Self> {
        if vid >= 1 && vid <= 4094 { Some(Self(vid)) } else { None }
    }

    /// The twelve bits.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A VXLAN network identifier, 24 bits (RFC 7348 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// `None` above 2^24 - 1.
    #[must_use]
    pub const fn new(vni: u32) -> Option<Self> {
        if vni < 1 << 24 { Some(Self(vni)) } else { None }
    }

    /// The 24 bits.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}
