//! One question to the cluster: to one member after the other, within one timeout.

use std::sync::atomic::Ordering;

use serde_json::Value;
use tokio::time::{Instant, timeout};
use control::store::StoreError;

use super::{
    transport::{Failure, Transport},
    wire::code,
};

/// When another member may be asked the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Always: done twice is as good as done once.
    Freely,
    /// Only if it was certainly not done: who then lost a race against himself would believe that another had won it.
    Unsent,
}

impl Transport {
    /// The first useful answer of a member.
    pub(super) async fn call<T>(&self, path: &str, body: Value, repeat: Repeat, read: fn(&[u8]) -> Option<T>) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.timeout;
        let mut member = self.current.load(Ordering::Relaxed);
        let mut last = StoreError::Away("no member".into());
        for left in (1..=self.count()).rev() {
            let remaining = deadline.saturating_duration_since(Instant::now());
            // A member that hangs leaves time to ask the others, if they may be asked.
            let share = if repeat == Repeat::Freely { remaining / u32::try_from(left).unwrap_or(u32::MAX) } else { remaining };
            let failure = match timeout(share, self.ask(member, path, &body, read)).await {
                Ok(Ok(answer)) => {
                    self.current.store(member, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Unanswered(format!("{}: no answer in time", self.name(member))),
            };
            let (error, again) = judge(failure, repeat);
            if !matches!(error, StoreError::Away(_)) && !again {
                return Err(error);
            }
            self.leave(member);
            last = error;
            if !again {
                break;
            }
            member = self.after(member);
        }
        Err(last)
    }
}

/// What it means for the caller, and whether another member may be asked.
fn judge(failure: Failure, repeat: Repeat) -> (StoreError, bool) {
    match failure {
        Failure::Unsent(why) => (StoreError::Away(why), true),
        Failure::Untrusted(why) => (StoreError::Refused(why), true),
        Failure::Unanswered(why) => (StoreError::Away(why), repeat == Repeat::Freely),
        Failure::Answered(code::NOT_FOUND, why) if why.contains("lease not found") => (StoreError::LeaseEnded, false),
        // No leader, or lost on the way to it.
        Failure::Answered(code::UNKNOWN | code::DEADLINE_EXCEEDED | code::INTERNAL | code::UNAVAILABLE, why) => (StoreError::Away(why), repeat == Repeat::Freely),
        Failure::Answered(_, why) => (StoreError::Refused(why), false),
    }
}
