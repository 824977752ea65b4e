//! The processes of one command: whoever is in the mount namespace that it was started with, or in its
//! session. Neither needs a PID namespace (and so an init inside), and a daemonised child stays in the first.

use std::{fs::File, os::fd::OwnedFd, os::unix::fs::MetadataExt};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{netns::Netns, process::of_session};

/// See the module. While this is held, no other mount namespace gets its number.
#[derive(Debug)]
pub struct Space {
    session: i32,
    mounts: Option<(OwnedFd, u64)>,
}

/// Rounds of killing: whoever forks meanwhile is found in the next.
const ROUNDS: usize = 50;

impl Space {
    /// Of a process that [`spawn`](crate::process::spawn) started and that still runs.
    #[must_use]
    pub fn of(pid: i32) -> Self {
        let open = |pid: &str| {
            let file = File::open(format!("/proc/{pid}/ns/mnt")).ok()?;
            let number = file.metadata().ok()?.ino();
            Some((OwnedFd::from(file), number))
        };
        let own = open("self").map(|(_, number)| number);
        let parent = open("1").map(|(_, number)| number);
        // Never the whole machine: only a mount namespace that was made for it.
        let mounts = open(&pid.to_string()).filter(|(_, number)| own.is_some() && Some(*number) != own && Some(*number) != parent);
        Self { session: pid, mounts }
    }

    /// All of it that runs now.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = of_session(self.session);
        if let Some((_, number)) = &self.mounts {
            pids.extend(in_mounts(*number));
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills all of it, and whom it starts meanwhile.
    pub fn kill(&self) {
        for _ in 0..ROUNDS {
            let pids = self.pids();
            let killed = pids.into_iter().filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok()).count();
            if killed == 0 {
                return;
            }
        }
    }
}

/// Processes in a mount namespace (namespaces(7)); zombies are in none.
fn in_mounts(number: u64) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| mounts_of(*pid) == Some(number)).collect()
}

fn mounts_of(pid: i32) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|meta| meta.ino())
}

/// Kills what is left in a network namespace of ours whose first process ended with nobody there to be told,
/// but for those who belong to another that joined it.
pub fn kill_left(netns: &Netns, others: &[Space]) {
    let kept: Vec<u64> = others.iter().filter_map(|other| other.mounts.as_ref()).map(|(_, number)| *number).chain(mounts_of(1)).collect();
    let is_left = |pid: &i32| mounts_of(*pid).is_some_and(|mounts| !kept.contains(&mounts));
    for pid in netns.pids().into_iter().filter(is_left) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_no_space() {
        let own = Space::of(i32::try_from(std::process::id()).unwrap());
        assert!(own.mounts.is_none());
        assert!(Space::of(1).mounts.is_none());
        assert!(Space::of(i32::MAX).pids().is_empty());
    }
}
