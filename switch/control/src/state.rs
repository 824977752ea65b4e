//! The state file: one versioned JSON document with a checksum, as bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Model;

/// Of the format.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    /// FNV-1a of the model's JSON: against damage, not against attackers.
    checksum: u64,
    model: serde_json::Value,
}

/// Why a state file was refused. It is never overwritten then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Not what was written.
    Damaged(String),
    /// Written by a later version of the program.
    Newer(u32),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "the state file is damaged ({why}): restore it from a copy, or move it away to start empty"),
            Self::Newer(version) => write!(f, "the state file has version {version}, this program knows {VERSION}: use the newer program, or move the file away to start empty"),
        }
    }
}

impl std::error::Error for StateError {}

/// The model as bytes.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn encode(model: &Model) -> Result<Vec<u8>, StateError> {
    let damaged = |error: serde_json::Error| StateError::Damaged(error.to_string());
    let model = serde_json::to_value(model).map_err(damaged)?;
    let document = Document { version: VERSION, checksum: checksum(&model), model };
    serde_json::to_vec_pretty(&document).map_err(damaged)
}

/// The model from bytes.
///
/// # Errors
/// When they are damaged, or newer than this program.
pub fn decode(bytes: &[u8]) -> Result<Model, StateError> {
    let damaged = |error: serde_json::Error| StateError::Damaged(error.to_string());
    let document: Document = serde_json::from_slice(bytes).map_err(damaged)?;
    if document.version > VERSION {
        return Err(StateError::Newer(document.version));
    }
    if checksum(&document.model) != document.checksum {
        return Err(StateError::Damaged("its checksum does not match".into()));
    }
    serde_json::from_value(document.model).map_err(damaged)
}

fn checksum(model: &serde_json::Value) -> u64 {
    model.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NetworkCreate;

    #[test]
    fn round_trip_and_no_flipped_bit_passes_unseen() {
        let mut model = Model::default();
        model.create_network(&NetworkCreate { name: "net".into(), ..NetworkCreate::default() }, "1".repeat(64)).unwrap();
        let bytes = encode(&model).unwrap();
        let canonical = serde_json::to_string(&decode(&bytes).unwrap()).unwrap();
        assert_eq!(canonical, serde_json::to_string(&model).unwrap());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                // A flip in white space changes nothing; all others are seen.
                if let Ok(model) = decode(&damaged) {
                    assert_eq!(serde_json::to_string(&model).unwrap(), canonical, "byte {at} bit {bit}");
                }
            }
        }
        let newer = String::from_utf8(bytes).unwrap().replace("\"version\": 1", "\"version\": 2");
        assert_eq!(decode(newer.as_bytes()).unwrap_err(), StateError::Newer(2));
    }
}
