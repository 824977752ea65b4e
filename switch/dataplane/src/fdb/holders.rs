//! How many learned entries each port holds.

use super::PortSlot;

/// Sorted by port, so that it takes memory for the ports that hold something and no others.
#[derive(Debug, Default)]
pub(super) struct Holders(Vec<(PortSlot, usize)>);

impl Holders {
    /// Ports that hold something.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn count(&self, port: PortSlot) -> usize {
        self.find(port).map_or(0, |at| self.0[at].1)
    }

    pub(super) fn hold(&mut self, port: PortSlot) {
        match self.find(port) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (port, 1)),
        }
    }

    pub(super) fn release(&mut self, port: PortSlot) {
        let Ok(at) = self.find(port) else { return };
        self.0[at].1 -= 1;
        if self.0[at].1 == 0 {
            self.0.remove(at);
        }
    }

    /// The port that holds most.
    pub(super) fn heaviest(&self) -> Option<PortSlot> {
        self.0.iter().max_by_key(|(_, count)| count).map(|&(port, _)| port)
    }

    fn find(&self, port: PortSlot) -> Result<usize, usize> {
        self.0.binary_search_by_key(&port, |&(port, _)| port)
    }
}
