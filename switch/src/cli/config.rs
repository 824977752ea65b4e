//! `weft config diff|apply FILE`: a running daemon becomes what a file says.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use weft_control::{config, desired::Line};

use super::{End, Place, invalid, print, print_json, unavailable};

/// What `diff` ends with when it cannot compare, as diff(1) has it.
pub(super) const CANNOT_COMPARE: u8 = 2;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigAction {
    /// What would change: + is made, - goes, ~ changes. Ends with 0 when nothing does, with 1 when something does
    Diff {
        /// As of `weft up` (TOML), or a daemon's file
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Change it, with the least that has to change: all or nothing
    Apply {
        /// As of `weft up` (TOML), or a daemon's file
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(action: &ConfigAction, place: &Place) -> End {
    let (file, as_json, dry) = match action {
        ConfigAction::Diff { file, json } => (file, *json, true),
        ConfigAction::Apply { file, json } => (file, *json, false),
    };
    if crate::up::is_compose(file) {
        return Err(invalid(&file.to_string_lossy(), format!("{0} is a compose file: `weft config` takes files of `weft up` (TOML) and of daemons", file.display()))
            .hint(format!("`weft up {0}` runs it in a switch of its own; `docker compose -f {0} up -d` at this daemon's socket", file.display())));
    }
    let text = std::fs::read_to_string(file).map_err(|error| unavailable(format!("cannot read {}: {error}", file.display())))?;
    let (desired, notices) = config::desired(&text).map_err(|error| invalid(&file.to_string_lossy(), format!("{}: {error}", file.display())))?;
    notices.iter().for_each(|notice| eprintln!("weft: {}: {}", file.display(), super::clean(notice)));
    let answer = place.client.post(&format!("/v1/config?dry-run={dry}"), &json!(desired))?;
    let lines: Vec<Line> = serde_json::from_value(answer["changes"].clone()).map_err(unavailable)?;
    if as_json {
        print_json(&answer);
    } else {
        lines.iter().for_each(|line| print(&format!("{} {}", line.sign, line.text)));
    }
    Ok(u8::from(dry && !lines.is_empty()))
}
