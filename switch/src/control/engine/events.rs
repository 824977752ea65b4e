//! `docker events`: ours, in Docker's words. The last ones are kept for those who ask for the past.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{broadcast, mpsc},
    task,
};

use super::types::{Result, reached, time_ns};
use weft_control::docker::Filters;
use crate::{
    control::{http::Stream, runtime::Runtime},
    output_log::now_ns,
};

/// Events that are kept.
const KEPT: usize = 1000;

/// What happened, and who wants to know what happens.
pub(crate) struct History {
    kept: Mutex<VecDeque<Arc<Value>>>,
    live: broadcast::Sender<Arc<Value>>,
}

impl Default for History {
    fn default() -> Self {
        Self { kept: Mutex::default(), live: broadcast::Sender::new(KEPT) }
    }
}

impl History {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<Value>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event of ours, if Docker has a word for it.
    pub(crate) fn add(&self, event: &Value) {
        let mut kept = self.kept();
        let Some(event) = translate(event, now_ns()).map(Arc::new) else { return };
        kept.truncate(KEPT - 1);
        kept.push_front(event.clone());
        drop(self.live.send(event));
    }

    /// What there was from then on, the oldest first, and what comes next: nothing is in both, or in neither.
    fn from(&self, since_ns: Option<u64>) -> (Vec<Arc<Value>>, broadcast::Receiver<Arc<Value>>) {
        let kept = self.kept();
        let is_since = |event: &&Arc<Value>| since_ns.is_some_and(|since| event["timeNano"].as_u64().is_some_and(|at| at >= since));
        (kept.iter().rev().filter(is_since).cloned().collect(), self.live.subscribe())
    }
}

/// `sandbox die` as `container die`, and so on; what Docker has no word for is not told.
fn translate(event: &Value, time_ns: u64) -> Option<Value> {
    let (noun, action) = event["type"].as_str()?.split_once(' ')?;
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let mut attributes = Map::new();
    let (kind, id) = match noun {
        "sandbox" => {
            attributes.insert("name".into(), json!(text("sandbox")));
            attributes.insert("image".into(), json!("host"));
            for key in ["exitCode", "signal"] {
                if let Some(value) = event.get(key) {
                    attributes.insert(key.into(), value.clone());
                }
            }
            ("container", text("id"))
        }
        "network" if matches!(action, "create" | "destroy" | "connect" | "disconnect") => {
            attributes.insert("name".into(), json!(text("network")));
            attributes.insert("type".into(), json!("bridge"));
            if event.get("sandbox").is_some() {
                attributes.insert("container".into(), json!(text("sandbox_id")));
            }
            ("network", text("id"))
        }
        _ => return None,
    };
    let mut told = json!({
        "Type": kind,
        "Action": action,
        "Actor": { "ID": id, "Attributes": attributes },
        "scope": "local",
        "time": time_ns / 1_000_000_000,
        "timeNano": time_ns,
    });
    if kind == "container" {
        // Older clients read these.
        told["status"] = json!(action);
        told["id"] = json!(id);
        told["from"] = json!("host");
    }
    Some(told)
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    since: Option<String>,
    until: Option<String>,
    filters: Option<String>,
}

pub(super) async fn follow(State(runtime): State<Runtime>, Query(query): Query<Wanted>) -> Result<Response> {
    let filters = Filters::parse(query.filters.as_deref(), &["type", "event", "network", "container", "scope"])?;
    let time = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(time_ns).transpose();
    let (since, until) = (time(&query.since)?, time(&query.until)?);
    // Docker's: with an end alone it is all that is kept.
    let (past, mut live) = runtime.history.from(since.or(until.map(|_| 0)));
    let (sender, receiver) = mpsc::channel(64);
    task::spawn(async move {
        let in_time = |event: &Value| until.is_none_or(|until| event["timeNano"].as_u64().is_some_and(|at| at <= until));
        let line = |event: &Value| Bytes::from(format!("{event}\n"));
        for event in past.iter().filter(|event| in_time(event) && takes(&filters, event)) {
            if sender.send(line(event)).await.is_err() {
                return;
            }
        }
        let mut end = pin!(reached(until));
        loop {
            let event = tokio::select! {
                // What has come before the end is told before it.
                biased;
                event = live.recv() => event,
                () = &mut end => return,
                () = sender.closed() => return,
            };
            match event {
                Ok(event) if in_time(&event) && takes(&filters, &event) => {
                    if sender.send(line(&event)).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    Ok(([("content-type", "application/json")], Body::new(Stream(receiver))).into_response())
}

fn takes(filters: &Filters, event: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, id, name) = (text(&event["Type"]), text(&event["Actor"]["ID"]), text(&event["Actor"]["Attributes"]["name"]));
    let is = |word: &str| name == word || (!word.is_empty() && id.starts_with(word));
    let container = text(&event["Actor"]["Attributes"]["container"]);
    filters.any("type", |word| kind == word)
        && filters.any("event", |word| event["Action"] == word)
        && filters.any("scope", |word| word == "local")
        && filters.any("network", |word| kind == "network" && is(word))
        && filters.any("container", |word| (kind == "container" && is(word)) || (!word.is_empty() && container.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_docker_s_words() {
        let told = translate(&json!({ "type": "sandbox die", "sandbox": "web", "id": "abc", "exitCode": "7" }), 5_000_000_001).unwrap();
        assert_eq!((&told["Type"], &told["Action"], &told["Actor"]["Attributes"]["exitCode"], &told["time"]), (&json!("container"), &json!("die"), &json!("7"), &json!(5)));
        assert!(translate(&json!({ "type": "port attach" }), 1).is_none() && translate(&json!({ "type": "lost" }), 1).is_none());
        let filters = Filters::parse(Some(r#"{"type":["container"],"event":["die"],"container":["web"]}"#), &["type", "event", "container"]).unwrap();
        assert!(takes(&filters, &told));
    }

    #[test]
    fn who_comes_while_much_happens_misses_nothing_and_hears_nothing_twice() {
        const EVENTS: usize = 900;
        let history = History::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..EVENTS).for_each(|number| history.add(&json!({ "type": "sandbox create", "sandbox": "c", "id": number.to_string() }))));
            let mut followers = Vec::new();
            while history.kept().len() < EVENTS {
                followers.push(history.from(Some(0)));
            }
            for (past, mut live) in followers {
                let ids = past.into_iter().chain(std::iter::from_fn(|| live.try_recv().ok())).map(|event| event["id"].as_str().unwrap().parse::<usize>().unwrap());
                assert!(ids.eq(0..EVENTS));
            }
        });
    }
}
