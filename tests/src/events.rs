//! `weft events --json`, followed.

use std::{fs, path::PathBuf};

use crate::{lab::Lab, ns::Background, run::eventually};

/// Events of a daemon; they are followed until this is dropped.
#[derive(Debug)]
pub struct Events {
    _follower: Background,
    file: PathBuf,
}

impl Events {
    /// None is missed from here on: it has heard of a network that came and went.
    ///
    /// # Panics
    /// When the daemon does not tell.
    #[must_use]
    #[track_caller]
    pub fn follow(lab: &Lab) -> Self {
        let file = lab.dir().join("events");
        let output = fs::File::create(&file).expect("a file");
        let follower = lab.weft_command().args(["events", "--json"]).stdout(output).spawn().expect("weft events");
        let events = Self { _follower: Background(follower), file };
        eventually("events are followed", || {
            lab.weft("network create mark").ok();
            lab.weft("network rm mark").ok();
            events.tell(&["network destroy", "mark"])
        });
        events
    }

    #[must_use]
    pub fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Whether one of them has all these words.
    #[must_use]
    pub fn tell(&self, words: &[&str]) -> bool {
        self.text().lines().any(|line| words.iter().all(|word| line.contains(word)))
    }
}
