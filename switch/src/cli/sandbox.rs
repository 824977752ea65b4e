//! `weft exec`, `ps`, `inspect`, `rm`, `logs`.

use std::{io::Write, os::unix::process::CommandExt, process::Command};

use netns_setup::process::{self, CommandSpec};
use serde_json::{Value, json};
use weft_control::{Code, ControlError};

use super::{
    End, Place,
    args::{ExecArguments, PsArguments},
    invalid,
    netns::{Target, find},
    network::{each, short},
    print, print_json,
    run::cannot_start,
    table::{cut, table},
    unavailable,
};
use crate::{
    client::escape,
    output_log::{Log, LogReader},
};

pub(super) fn exec(arguments: &ExecArguments, place: &Place) -> End {
    exec_in(&find(&arguments.sandbox, place)?, &arguments.sandbox, &arguments.command)
}

/// Becomes the command.
pub(super) fn exec_in(target: &Target, name: &str, command: &[String]) -> End {
    let (why, kind) = if target.is_here {
        let (program, words) = command.split_first().ok_or_else(|| invalid("", "no command given"))?;
        let error = Command::new(program).args(words).exec();
        (format!("cannot run {program}: {error}"), error.kind())
    } else {
        let etc = target.etc.clone().or_else(|| (!name.contains('/')).then(|| process::etc_of(name)));
        let spec = CommandSpec { command: command.to_vec(), etc, hostname: target.hostname.clone(), ..CommandSpec::default() };
        match process::exec(&target.netns, target.host, &spec) {
            Ok(never) => match never {},
            Err(error) => (error.to_string(), error.cause.kind()),
        }
    };
    Ok(cannot_start(&why, kind))
}

/// Commands are cut to this in `ps`; `inspect` has the whole.
const COMMAND_WIDTH: usize = 32;

pub(super) fn ps(arguments: &PsArguments, place: &Place) -> End {
    let all = place.client.get("/v1/sandboxes")?.as_array().cloned().unwrap_or_default();
    // Containers of the docker command that do not run are shown with -a, as Docker does.
    let is_at_rest = |sandbox: &Value| matches!(sandbox["container"]["phase"].as_str(), Some("created" | "exited"));
    let ours = |sandbox: &&Value| arguments.all || ((arguments.quiet || sandbox["netns"] == json!("new") || !sandbox["container"].is_null()) && !is_at_rest(sandbox));
    let shown: Vec<_> = all.iter().filter(ours).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if arguments.json {
        print_json(&json!(shown));
    } else if arguments.quiet {
        shown.iter().for_each(|sandbox| print(&short(&text(&sandbox["id"]))));
    } else {
        let rows: Vec<_> = shown
            .iter()
            .map(|sandbox| {
                let endpoints = sandbox["endpoints"].as_array().cloned().unwrap_or_default();
                let networks: Vec<_> = endpoints.iter().map(|endpoint| text(&endpoint["network_name"])).collect();
                let addresses: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint["addresses"].as_array().cloned().unwrap_or_default()).map(|address| text(&address)).collect();
                let command: Vec<_> = sandbox["command"].as_array().into_iter().flatten().map(text).collect();
                let status = match (sandbox["pid"].as_i64(), sandbox["container"]["phase"].as_str()) {
                    (Some(pid), _) => format!("running ({pid})"),
                    (None, Some("exited")) => format!("exited ({})", sandbox["container"]["exit_code"]),
                    (None, Some(phase)) => phase.to_owned(),
                    (None, None) => "attached".into(),
                };
                vec![short(&text(&sandbox["id"])), text(&sandbox["name"]), cut(&command.join(" "), COMMAND_WIDTH), status, networks.join(","), addresses.join(",")]
            })
            .collect();
        table(&["SANDBOX ID", "NAME", "COMMAND", "STATUS", "NETWORKS", "ADDRESSES"], &rows);
    }
    Ok(0)
}

pub(super) fn inspect(names: &[String], place: &Place) -> End {
    let of = |kind: &str, name: &str| place.client.get(&format!("/v1/{kind}/{}", escape(name)));
    let one = |name: &String| match of("sandboxes", name) {
        Err(error) if error.code == Code::NotFound => of("networks", name).map_err(|_| error),
        answer => answer,
    };
    let views: Result<Vec<_>, _> = names.iter().map(one).collect();
    print_json(&json!(views?));
    Ok(0)
}

pub(super) fn rm(names: &[String], force: bool, place: &Place) -> End {
    each(names, |name| place.client.delete(&format!("/v1/sandboxes/{}?force={force}", escape(name)), None), print)
}

pub(super) fn logs(name: &str, place: &Place) -> End {
    let gone = |error: ControlError| match error.code {
        Code::NotFound => error.hint("a sandbox of `weft run` goes when its command ends, and what it wrote with it: run it without -d to see that; `weft ps` lists those that are there"),
        _ => error,
    };
    let sandbox = place.client.get(&format!("/v1/sandboxes/{}", escape(name))).map_err(gone)?;
    let path = sandbox["log"].as_str().ok_or_else(|| invalid(name, format!("{name} runs no command of ours")))?;
    copy_log(path.as_ref()).map_err(|error| unavailable(format!("cannot read {path}: {error}")))
}

/// What it wrote, each stream to its own.
fn copy_log(path: &std::path::Path) -> std::io::Result<u8> {
    let mut log = LogReader::open(&Log::at(path))?;
    loop {
        let entries = log.read()?;
        if entries.is_empty() {
            return Ok(0);
        }
        for entry in entries {
            match entry.stream {
                1 => std::io::stdout().write_all(&entry.text)?,
                _ => std::io::stderr().write_all(&entry.text)?,
            }
        }
    }
}
