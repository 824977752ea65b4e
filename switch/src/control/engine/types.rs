//! Answers as Docker has them: errors, times.

use std::time::Duration;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use weft_control::{Code, ControlError};

use crate::output_log::now_ns;

/// An error as Docker says it: a status, and `{"message"}`.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let status = match error.code {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Exists | Code::Conflict | Code::InUse => StatusCode::CONFLICT,
            Code::Invalid | Code::CommandNotFound | Code::CannotExecute => StatusCode::BAD_REQUEST,
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

/// A time of a query, in seconds since 1970 with or without a fraction, as nanoseconds.
pub(crate) fn time_ns(text: &str) -> Result<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{fraction:0<9}");
    let parsed = whole.parse::<u64>().ok().zip(digits.get(..9).and_then(|digits| digits.parse::<u64>().ok()));
    let (whole, fraction) = parsed.ok_or_else(|| bad(format!("invalid time {text:?}: want seconds since 1970")))?;
    Ok(whole.saturating_mul(1_000_000_000).saturating_add(fraction))
}

/// Waits for a time, nanoseconds since 1970; for ever without one.
pub(super) async fn reached(time_ns: Option<u64>) {
    match time_ns {
        Some(time_ns) => tokio::time::sleep(Duration::from_nanos(time_ns.saturating_sub(now_ns()))).await,
        None => std::future::pending().await,
    }
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
}
