//! Docker's JSON as our requests: what it means, or by name why it cannot be had. Pure, so that it can be fuzzed.

mod container;
mod endpoint;
mod filters;
mod network;

pub use container::definition;
pub use endpoint::{Leave, endpoint_request, membership};
pub use filters::Filters;
pub use network::{NetworkRequest, network_request};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Code, ControlError, Result};

pub(crate) fn bad(message: impl Into<String>) -> ControlError {
    ControlError::new(Code::Invalid, "", message)
}

fn not_found(message: impl Into<String>) -> ControlError {
    ControlError::new(Code::NotFound, "", message)
}

fn conflict(message: impl Into<String>) -> ControlError {
    ControlError::new(Code::Conflict, "", message)
}

/// A body; an empty one is `{}`. `null` means what leaving a field out means.
///
/// # Errors
/// When it is no JSON object.
pub fn value(body: &[u8]) -> Result<Value> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(json!({}));
    }
    let mut value: Value = serde_json::from_slice(body).map_err(|error| bad(format!("invalid JSON: {error}")))?;
    if !value.is_object() {
        return Err(bad("invalid JSON: want an object"));
    }
    without_nulls(&mut value);
    Ok(value)
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A value as `T`.
///
/// # Errors
/// When it is of another type.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| bad(format!("invalid request: {error}")))
}

/// Refuses, by name, what asks for something that is not there. `known` has an effect or none to miss.
///
/// # Errors
/// Naming the field.
pub fn refuse_others(of: &str, value: &Value, known: &[&str]) -> Result<()> {
    let Value::Object(fields) = value else { return Ok(()) };
    match fields.iter().find(|(key, value)| !known.contains(&key.as_str()) && !is_default(value)) {
        Some((key, value)) => Err(bad(format!("weft does not support {of}{key} ({value}): leave it out"))),
        None => Ok(()),
    }
}

/// What clients send for "not said".
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64().is_some_and(|number| number == 0 || number == -1),
        Value::String(text) => matches!(text.as_str(), "" | "no" | "default"),
        Value::Array(items) => items.iter().all(is_default),
        // The fields of Docker's own words are those; in a map (`Tmpfs`) a key alone says something.
        Value::Object(fields) => fields.iter().all(|(key, value)| key.starts_with(|first: char| first.is_ascii_uppercase()) && is_default(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_wishes_are_refused_by_name() {
        let sent = json!({ "Memory": 0, "Binds": null, "LogConfig": { "Type": "", "Config": {} }, "MemorySwappiness": -1, "CpuShares": 0, "NetworkMode": "lab" });
        assert!(refuse_others("HostConfig.", &sent, &["NetworkMode"]).is_ok());
        let wish = refuse_others("HostConfig.", &json!({ "Memory": 1024 }), &[]).unwrap_err();
        assert!(wish.message.contains("HostConfig.Memory (1024)"), "{wish}");
        for wish in [json!({ "Tmpfs": { "/tmp": "" } }), json!({ "Sysctls": { "net.ipv4.ip_forward": "0", "A": "" } })] {
            assert!(refuse_others("HostConfig.", &wish, &[]).is_err(), "{wish}");
        }
    }

    #[test]
    fn bodies_are_objects() {
        assert_eq!(value(b" \n").unwrap(), json!({}));
        assert_eq!(value(br#"{"a":null,"b":[{"c":null}]}"#).unwrap(), json!({ "b": [{}] }));
        for body in [&b"{"[..], b"[]", b"1", b"\xff", b"null"] {
            assert!(value(body).is_err());
        }
        let deep = "{\"a\":".repeat(100_000);
        assert!(value(deep.as_bytes()).is_err());
    }
}
