//! What the grammar says of itself: shell completions and manual pages.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;
use weft_control::{Code, ControlError, Result};

use super::{args::Arguments, print};

/// Prints the completions of a shell.
pub(super) fn completions(shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "weft", &mut script);
    print(String::from_utf8_lossy(&script).trim_end());
    Ok(0)
}

/// Writes `weft.1`, `weft-network.1`, `weft-network-create.1` and so on.
pub(super) fn pages(directory: &Path) -> Result<u8> {
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Arguments::command(), directory));
    written.map_err(|error| ControlError::new(Code::Invalid, directory.display().to_string(), format!("write manual pages to {}: {error}", directory.display())).hint("name a directory that you may write to"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name for each command on the way down, as the page's file has it.
    fn names(command: &clap::Command, name: &str, all: &mut Vec<String>) {
        all.push(name.to_owned());
        command.get_subcommands().filter(|inner| !inner.is_hide_set()).for_each(|inner| names(inner, &format!("{name}-{}", inner.get_name()), all));
    }

    #[test]
    fn every_command_has_a_page_with_a_line_of_what_it_does() {
        let directory = std::env::temp_dir().join(format!("weft-man-{}", std::process::id()));
        pages(&directory).expect("pages");
        let mut all = Vec::new();
        names(&Arguments::command(), "weft", &mut all);
        assert!(all.len() > 50 && all.contains(&"weft-network-create".to_owned()), "{all:?}");
        for name in all {
            let page = fs::read_to_string(directory.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}: {error}"));
            let line = page.lines().skip_while(|line| *line != ".SH NAME").nth(1).unwrap_or_default();
            assert!(line.contains(" \\- ") && line.split(" \\- ").nth(1).is_some_and(|text| !text.is_empty()), "{name}: {line}");
        }
        fs::remove_dir_all(&directory).expect("removed");
        let error = pages(Path::new("/proc/nothing")).expect_err("not a directory that can be made");
        assert!(error.to_string().contains("/proc/nothing"), "{error}");
    }
}
