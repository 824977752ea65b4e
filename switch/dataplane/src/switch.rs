//! The one place that strings the stages of a frame's way together.

use packet::{Frame, Instant, Pool, PortId};

use crate::{
    command::{Command, CommandError, Reply, TimeoutReason},
    drop::DropReason,
    outbox::Outbox,
};

/// Bounds and seed of a switch.
#[derive(Clone, Copy, Debug)]
pub struct SwitchConfig {
    /// Seeds the keyed hashes and every random choice.
    pub seed: u64,
    /// Ports at most.
    pub max_ports: usize,
    /// Bridges at most.
    pub max_bridges: usize,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self { seed: 0, max_ports: 65_536, max_bridges: 16_384 }
    }
}

/// The data plane.
#[derive(Debug)]
pub struct Switch {
    pool: Pool,
}

impl Switch {
    /// An empty switch whose frames come from `pool`.
    #[must_use]
    pub fn new(_config: SwitchConfig, pool: Pool) -> Self {
        Self { pool }
    }

    /// A frame came in on a port.
    pub fn ingress(&mut self, _port: PortId, _frame: Frame, _now: Instant, _out: &mut Outbox) {}

    /// The device reported a frame that cannot be used (for example a lying offload header): counted.
    pub fn ingress_error(&mut self, _port: PortId, _reason: DropReason) {}

    /// The shell could not write a frame that it was given: counted under the egress port.
    pub fn egress_error(&mut self, _port: PortId, _reason: DropReason, _count: u64) {}

    /// Deadlines up to `now` are due.
    pub fn handle_timeout(&mut self, _now: Instant, _out: &mut Outbox) {}

    /// The next deadline, with its reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        None
    }

    /// Carries out a command; a refused one changes nothing.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn apply(&mut self, _command: Command, _now: Instant, _out: &mut Outbox) -> Result<Reply, CommandError> {
        Ok(Reply::Done)
    }

    /// The buffers that frames come from.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
