//! Networks that reach each other through the router.

use super::{Model, invalid};
use crate::error::{Code, ControlError, Result};

impl Model {
    /// Takes a network's ways to others away.
    pub fn drop_routes(&mut self, id: &str) {
        self.routes = self.routes.iter().filter(|(one, other)| one != id && other != id).cloned().collect();
    }

    /// Lets two networks reach each other, or no longer; gives their ids, the smaller first.
    ///
    /// # Errors
    /// When there is no such network, it has no way out, or nothing changes.
    pub fn set_route(&mut self, networks: &[String; 2], open: bool) -> Result<(String, String)> {
        let mut ids = Vec::new();
        for name in networks {
            let network = self.network(name)?;
            if open && !network.has_router() {
                return Err(invalid(name, format!("network {name} has no router of weft's: it is internal, not a bridge, a LAN's, or without addresses")));
            }
            ids.push(network.id.clone());
        }
        ids.sort();
        let [Some(one), Some(other)] = [ids.first().cloned(), ids.get(1).cloned()] else { return Err(invalid("", "two networks are needed")) };
        if one == other {
            return Err(invalid(&networks[0], "a network reaches itself"));
        }
        let pair = (one, other);
        match open {
            true if self.routes.insert(pair.clone()).is_some() => Err(ControlError::new(Code::Exists, &networks[0], format!("{} and {} reach each other already", networks[0], networks[1]))),
            false if self.routes.remove(&pair).is_none() => Err(ControlError::new(Code::NotFound, &networks[0], format!("there is no route between {} and {}", networks[0], networks[1]))),
            _ => Ok(pair),
        }
    }
}
