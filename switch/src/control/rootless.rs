//! Without root: enter our own user namespace before any thread starts, or the one that a daemon
//! before us left with its keeper.

use std::{fs, io};

use netns_setup::{process::start_time, user};

use crate::dirs::Dirs;

/// Enters the namespaces. Must be called while the process has one thread.
pub(crate) fn enter(dirs: &Dirs) -> Result<(), String> {
    dirs.create().map_err(|error| format!("cannot create {}: {error}", dirs.run.display()))?;
    if let Some(pid) = keeper(dirs) {
        return user::join_user_namespace(pid).map_err(|error| error.to_string());
    }
    user::enter_user_namespace().map_err(|error| error.to_string())?;
    let pid = user::spawn_keeper().map_err(|error| error.to_string())?;
    let start = start_time(pid).unwrap_or(0);
    fs::write(dirs.keeper(), format!("{pid} {start}")).map_err(|error| format!("cannot write {}: {error}", dirs.keeper().display()))
}

/// The keeper that still runs.
fn keeper(dirs: &Dirs) -> Option<i32> {
    let text = fs::read_to_string(dirs.keeper()).ok()?;
    let (pid, start) = text.split_once(' ')?;
    let pid = pid.parse().ok()?;
    (start_time(pid) == start.trim().parse().ok()).then_some(pid)
}

/// Ends the keeper: nothing is left that needs the namespaces.
pub(crate) fn dismiss_keeper(dirs: &Dirs) -> io::Result<()> {
    if let Some(pid) = keeper(dirs) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        fs::remove_file(dirs.keeper())?;
    }
    Ok(())
}
