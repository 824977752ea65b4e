//! etcd's JSON (its `rpc.proto` through grpc-gateway): bytes are base64, numbers are strings, what is zero is left out.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};
use control::store::{Change, Compare, Entry, LeaseId, Outcome, Seen, Snapshot, Transaction};

/// gRPC's codes, as far as they make a difference.
pub(super) mod code {
    pub(crate) const UNKNOWN: u64 = 2;
    pub(crate) const DEADLINE_EXCEEDED: u64 = 4;
    pub(crate) const NOT_FOUND: u64 = 5;
    pub(crate) const OUT_OF_RANGE: u64 = 11;
    pub(crate) const INTERNAL: u64 = 13;
    pub(crate) const UNAVAILABLE: u64 = 14;
    pub(crate) const UNAUTHENTICATED: u64 = 16;
}

/// A number, written as such or as a string.
#[derive(Clone, Copy, Debug, Default)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text.parse().map(Self).map_err(D::Error::custom),
        }
    }
}

#[derive(Debug, Default)]
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    cluster_id: Number,
    revision: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: Base64,
    value: Base64,
    mod_revision: Number,
    lease: Number,
}

impl KeyValue {
    /// Nothing if the key is no text: then it is none of ours.
    fn entry(self) -> Option<Entry> {
        let key = String::from_utf8(self.key.0).ok()?;
        let lease = Some(LeaseId(self.lease.0)).filter(|lease| lease.0 != 0);
        Some(Entry { key, value: self.value.0, revision: self.mod_revision.0, lease })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Range {
    header: Header,
    kvs: Vec<KeyValue>,
}

/// The first JSON value of an answer; etcd's calls that stream put more behind it, and never to us.
fn first<'de, T: Deserialize<'de>>(answer: &'de [u8]) -> Option<T> {
    serde_json::Deserializer::from_slice(answer).into_iter().next()?.ok()
}

fn bytes(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The end of the keys that begin with `prefix`; all keys have a notation of their own.
fn keys_below(prefix: &str) -> (String, String) {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        // The last byte of text is never 0xff.
        Some(last) => {
            *last = last.saturating_add(1);
            (bytes(prefix), bytes(end))
        }
        None => (bytes([0]), bytes([0])),
    }
}

pub(super) fn range(prefix: &str) -> Value {
    let (key, end) = keys_below(prefix);
    json!({ "key": key, "range_end": end })
}

/// A question that only a member in touch with the cluster can answer; at a revision, only if that is still kept.
pub(super) fn probe(prefix: &str, revision: Option<u64>) -> Value {
    let (key, end) = keys_below(prefix);
    json!({ "key": key, "range_end": end, "limit": "1", "keys_only": true, "revision": revision.unwrap_or(0).to_string() })
}

/// With the ID of the cluster that answered.
pub(super) fn read_range(answer: &[u8]) -> Option<(Snapshot, u64)> {
    let range: Range = first(answer)?;
    let revision = Some(range.header.revision.0).filter(|revision| *revision > 0)?;
    Some((Snapshot { revision, entries: range.kvs.into_iter().filter_map(KeyValue::entry).collect() }, range.header.cluster_id.0))
}

pub(super) fn transaction(transaction: &Transaction) -> Value {
    let compare = |compare: &Compare| {
        let key = bytes(compare.key());
        match compare {
            Compare::Absent(_) => json!({ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }),
            Compare::Present(_) => json!({ "key": key, "target": "CREATE", "result": "GREATER", "create_revision": "0" }),
            Compare::Unchanged(_, revision) => json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() }),
        }
    };
    let change = |change: &Change| match change {
        Change::Put { key, value, lease } => json!({ "request_put": { "key": bytes(key), "value": bytes(value), "lease": lease.map_or(0, |lease| lease.0).to_string() } }),
        Change::Delete { key } => json!({ "request_delete_range": { "key": bytes(key) } }),
    };
    json!({
        "compare": transaction.when.iter().map(compare).collect::<Vec<_>>(),
        "success": transaction.then.iter().map(change).collect::<Vec<_>>(),
        "failure": transaction.when.iter().map(|compare| json!({ "request_range": { "key": bytes(compare.key()) } })).collect::<Vec<_>>(),
    })
}

pub(super) fn read_transaction(answer: &[u8]) -> Option<Outcome> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Response {
        response_range: Range,
    }
    #[derive(Deserialize)]
    struct Answer {
        header: Header,
        #[serde(default)]
        succeeded: bool,
        #[serde(default)]
        responses: Vec<Response>,
    }
    let answer: Answer = first(answer)?;
    let revision = Some(answer.header.revision.0).filter(|revision| *revision > 0)?;
    if answer.succeeded {
        return Some(Outcome::Done(revision));
    }
    Some(Outcome::Refused(answer.responses.into_iter().flat_map(|response| response.response_range.kvs).filter_map(KeyValue::entry).collect()))
}

/// Rounded up: etcd counts whole seconds.
pub(super) fn grant(time_to_live: Duration) -> Value {
    let seconds = time_to_live.as_secs() + u64::from(time_to_live.subsec_nanos() > 0);
    json!({ "TTL": seconds.max(1).to_string() })
}

pub(super) fn read_grant(answer: &[u8]) -> Option<LeaseId> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "ID")]
        id: Number,
    }
    first::<Answer>(answer).map(|answer| LeaseId(answer.id.0)).filter(|lease| lease.0 != 0)
}

pub(super) fn lease(lease: LeaseId) -> Value {
    json!({ "ID": lease.0.to_string() })
}

/// Whether it lives: a lease that is gone has no time left.
pub(super) fn read_keep_alive(answer: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    struct Answer {
        result: Lease,
    }
    #[derive(Deserialize)]
    struct Lease {
        header: Header,
        #[serde(rename = "TTL", default)]
        left: Number,
    }
    first::<Answer>(answer).filter(|answer| answer.result.header.revision.0 > 0).map(|answer| answer.result.left.0 > 0)
}

pub(super) fn read_revoke(answer: &[u8]) -> Option<()> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "header")]
        _header: Header,
    }
    first::<Answer>(answer).map(drop)
}

pub(super) fn authenticate(user: &str, password: &str) -> Value {
    json!({ "name": user, "password": password })
}

pub(super) fn read_authenticate(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: String,
    }
    first::<Answer>(answer).map(|answer| answer.token)
}

/// A refusal: gRPC's code and what etcd says.
pub(super) fn read_error(answer: &[u8]) -> Option<(u64, String)> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(alias = "grpc_code")]
        code: Number,
        message: String,
    }
    first::<Answer>(answer).map(|answer| (answer.code.0, answer.message))
}

pub(super) fn watch(prefix: &str, after: u64) -> Value {
    let (key, end) = keys_below(prefix);
    json!({ "create_request": { "key": key, "range_end": end, "start_revision": after.saturating_add(1).to_string(), "progress_notify": true } })
}

/// A line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It stands, in this cluster.
    Created(u64),
    /// What happened, up to and with this revision.
    Events(Vec<Seen>, u64),
    /// What was asked for is no longer kept.
    Compacted,
    /// It has ended, because of this.
    Ended(String),
}

pub(super) fn read_line(line: &[u8]) -> Option<Line> {
    #[derive(Deserialize)]
    struct Answer {
        result: Option<Watch>,
        error: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Watch {
        header: Header,
        #[serde(default)]
        created: bool,
        #[serde(default)]
        canceled: bool,
        #[serde(default)]
        compact_revision: Number,
        #[serde(default)]
        cancel_reason: String,
        #[serde(default)]
        events: Vec<Event>,
    }
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "type", default)]
        kind: String,
        kv: KeyValue,
    }
    let answer: Answer = serde_json::from_slice(line).ok()?;
    let Some(watch) = answer.result else {
        return answer.error.map(|error| Line::Ended(error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned)));
    };
    if watch.compact_revision.0 > 0 {
        return Some(Line::Compacted);
    }
    if watch.canceled {
        return Some(Line::Ended(if watch.cancel_reason.is_empty() { "cancelled".into() } else { watch.cancel_reason }));
    }
    if watch.created {
        return Some(Line::Created(watch.header.cluster_id.0));
    }
    // Without events it says how far the watch has come.
    let until = watch.events.last().map_or(watch.header.revision.0, |event| event.kv.mod_revision.0);
    let seen = watch.events.into_iter().filter_map(|event| {
        let entry = event.kv.entry()?;
        Some(if event.kind == "DELETE" { Seen::Deleted { key: entry.key, revision: entry.revision } } else { Seen::Put(entry) })
    });
    Some(Line::Events(seen.collect(), until))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [&str; 6] = [
        r#"{"header":{"cluster_id":"7","revision":"6"},"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"5","version":"1","value":"dg==","lease":"77"}],"count":"1"}"#,
        r#"{"header":{"revision":"6"},"responses":[{"response_range":{"header":{"revision":"2"},"kvs":[{"key":"YQ==","mod_revision":"5","value":"dg==","lease":"77"}]}},{"response_range":{}}]}"#,
        r#"{"result":{"header":{"revision":"6"},"ID":"77","TTL":"15"}}"#,
        r#"{"header":{"revision":"6"},"ID":"77","TTL":"15","token":"x.1"}"#,
        r#"{"result":{"header":{"cluster_id":"7","revision":"6"},"events":[{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"6"}},{"kv":{"key":"/w==","mod_revision":"6"}}]}}"#,
        r#"{"error":"a","message":"b","code":5}"#,
    ];

    fn read_all(bytes: &[u8]) {
        let _ = (read_range(bytes), read_transaction(bytes), read_grant(bytes), read_keep_alive(bytes));
        let _ = (read_revoke(bytes), read_authenticate(bytes), read_error(bytes), read_line(bytes));
    }

    #[test]
    fn samples_are_understood() {
        let entry = Entry { key: "a".into(), value: b"v".to_vec(), revision: 5, lease: Some(LeaseId(77)) };
        let [range, txn, keep_alive, grant, line, error] = SAMPLES.map(str::as_bytes);
        assert_eq!(read_range(range), Some((Snapshot { revision: 6, entries: vec![entry.clone()] }, 7)));
        assert_eq!(read_transaction(txn), Some(Outcome::Refused(vec![entry])));
        assert_eq!(read_keep_alive(keep_alive), Some(true));
        assert_eq!(read_grant(grant), Some(LeaseId(77)));
        assert_eq!(read_authenticate(grant).as_deref(), Some("x.1"));
        assert_eq!(read_line(line), Some(Line::Events(vec![Seen::Deleted { key: "a".into(), revision: 6 }], 6)), "a key that is no text is left out");
        assert_eq!(read_error(error), Some((5, "b".into())));
    }

    /// Whatever is cut off or changed: nothing, or something else, but no panic; and what is cut off is never whole.
    #[test]
    fn damaged_answers_do_no_harm() {
        for sample in SAMPLES.map(str::as_bytes) {
            for at in 0..sample.len() {
                let cut = &sample[..at];
                assert_eq!((read_range(cut), read_transaction(cut), read_line(cut)), (None, None, None));
                for byte in [0, b'"', b'{', b']', b'-', b'9', 0xff] {
                    let mut changed = sample.to_vec();
                    changed[at] = byte;
                    read_all(&changed);
                }
            }
        }
    }
}
