//! Requests and answers: JSON as Docker has it, errors, times.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_control::{Code, ControlError};

/// An error as Docker says it: a status, and `{"message"}`.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let status = match error.code {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Exists | Code::Conflict | Code::InUse => StatusCode::CONFLICT,
            Code::Invalid => StatusCode::BAD_REQUEST,
            Code::Exhausted | Code::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "message": self.1 }))).into_response()
    }
}

pub(crate) fn bad(message: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message.into())
}

pub(crate) fn not_found(message: impl Into<String>) -> Failure {
    Failure(StatusCode::NOT_FOUND, message.into())
}

pub(crate) fn conflict(message: impl Into<String>) -> Failure {
    Failure(StatusCode::CONFLICT, message.into())
}

pub(crate) fn forbidden(message: impl Into<String>) -> Failure {
    Failure(StatusCode::FORBIDDEN, message.into())
}

pub(crate) fn broken(error: impl std::fmt::Display) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// A body; an empty one is `{}`. `null` means what leaving a field out means.
pub(crate) fn value(body: &Bytes) -> Result<Value> {
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
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| bad(format!("invalid request: {error}")))
}

/// Refuses, by name, what asks for something that is not there. `known` has an effect or none to miss.
pub(crate) fn refuse_others(of: &str, value: &Value, known: &[&str]) -> Result<()> {
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
        Value::Object(fields) => fields.values().all(is_default),
    }
}

/// A query's `filters`: `{"name": ["a"]}`, or `{"name": {"a": true}}` as older clients have it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    pub(crate) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return Err(bad(format!("invalid filters: {text}"))) };
        let mut filters = BTreeMap::new();
        for (key, wanted) in fields {
            if !known.contains(&key.as_str()) {
                return Err(bad(format!("invalid filter '{key}': there are {}", known.join(", "))));
            }
            let words = match wanted {
                Value::Object(words) => words.into_iter().filter(|(_, on)| *on == json!(true)).map(|(word, _)| word).collect(),
                Value::Array(words) => words.into_iter().map(|word| word.as_str().unwrap_or_default().to_owned()).collect(),
                other => return Err(bad(format!("invalid filter '{key}': {other}"))),
            };
            filters.insert(key, words);
        }
        Ok(Self(filters))
    }

    pub(crate) fn words(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// True without such a filter, or when one of its words holds.
    pub(crate) fn any(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        let words = self.words(key);
        words.is_empty() || words.iter().any(|word| holds(word))
    }

    /// `label=KEY[=VALUE]`: all must hold.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |word: &String| match word.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|seen| seen == value),
            None => labels.contains_key(word),
        };
        self.words("label").iter().all(has) && !self.words("label!").iter().any(has)
    }

    /// True or false, if it was said.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.words(key) {
            [] => Ok(None),
            [word] if matches!(word.as_str(), "1" | "true") => Ok(Some(true)),
            [word] if matches!(word.as_str(), "0" | "false") => Ok(Some(false)),
            words => Err(bad(format!("invalid filter '{key}={}'", words.join(",")))),
        }
    }
}

/// A time of a query, in seconds since 1970 with or without a fraction, as nanoseconds.
pub(crate) fn time_ns(text: &str) -> Result<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{fraction:0<9}");
    let parsed = whole.parse::<u64>().ok().zip(digits.get(..9).and_then(|digits| digits.parse::<u64>().ok()));
    let (whole, fraction) = parsed.ok_or_else(|| bad(format!("invalid time {text:?}: want seconds since 1970")))?;
    Ok(whole.saturating_mul(1_000_000_000).saturating_add(fraction))
}

/// RFC 3339, with nanoseconds, UTC; Go's zero time for zero.
pub(crate) fn rfc3339(time_ns: u64) -> String {
    if time_ns == 0 {
        return "0001-01-01T00:00:00Z".into();
    }
    let (seconds, nanos) = (time_ns / 1_000_000_000, time_ns % 1_000_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March have their leap day at the end (Howard Hinnant, civil_from_days).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(rfc3339(0), "0001-01-01T00:00:00Z");
        assert_eq!(rfc3339(1), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_795_260_975_123_000_000), "2026-11-21T11:36:15.123000000Z");
        assert_eq!(time_ns("5.25").unwrap(), 5_250_000_000);
        assert!(time_ns("now").is_err() && time_ns("").is_err());
    }

    #[test]
    fn filters_in_both_forms() {
        let known = ["name", "label"];
        for text in [r#"{"name":["a","b"],"label":["x=1"]}"#, r#"{"name":{"a":true,"b":true},"label":{"x=1":true}}"#] {
            let filters = Filters::parse(Some(text), &known).unwrap();
            assert_eq!(filters.words("name"), ["a", "b"]);
            assert!(filters.labels(&BTreeMap::from([("x".into(), "1".into())])) && !filters.labels(&BTreeMap::new()));
        }
        for text in ["{", "[]", r#"{"what":["a"]}"#, r#"{"name":1}"#] {
            assert!(Filters::parse(Some(text), &known).is_err(), "{text}");
        }
    }

    #[test]
    fn defaults_pass_and_wishes_are_refused_by_name() {
        let sent = json!({ "Memory": 0, "Binds": null, "LogConfig": { "Type": "", "Config": {} }, "MemorySwappiness": -1, "CpuShares": 0, "NetworkMode": "lab" });
        assert!(refuse_others("HostConfig.", &sent, &["NetworkMode"]).is_ok());
        let wish = refuse_others("HostConfig.", &json!({ "Memory": 1024 }), &[]).unwrap_err();
        assert!(wish.1.contains("HostConfig.Memory (1024)"), "{}", wish.1);
    }
}
