//! Named namespaces: bind mounts in one directory, as `ip netns` keeps them in /run/netns.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::{
    error::{Context, Result, SetupError},
    netns::Netns,
};

/// A directory of named namespaces.
#[derive(Clone, Debug)]
pub struct NamespaceDir(PathBuf);

impl Default for NamespaceDir {
    /// The one that `ip netns` uses, so that both see the same names.
    fn default() -> Self {
        Self("/run/netns".into())
    }
}

impl NamespaceDir {
    /// Another directory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where a name is.
    ///
    /// # Errors
    /// When the name cannot be one.
    pub fn path_of(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.0.join(name))
    }

    /// Makes a namespace with lo up.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn add(&self, name: &str) -> Result<Netns> {
        let path = self.path_of(name)?;
        self.prepare()?;
        Netns::create_pinned(path)
    }

    /// Takes the name away; the namespace lives on while something uses it.
    ///
    /// # Errors
    /// When there is no such name.
    pub fn delete(&self, name: &str) -> Result<()> {
        Netns::unpin(self.path_of(name)?)
    }

    /// Opens a namespace by name.
    ///
    /// # Errors
    /// When there is no such name.
    pub fn open(&self, name: &str) -> Result<Netns> {
        Netns::open_path(self.path_of(name)?)
    }

    /// All names, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(|| format!("list {}", self.0.display()))?,
        };
        let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// The names of the namespace that a process is in.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn identify(&self, pid: i32) -> Result<Vec<String>> {
        let wanted = Netns::open_pid(pid)?.identity().context(|| format!("look at the namespace of {pid}"))?;
        let same = |name: &String| self.open(name).is_ok_and(|netns| netns.identity().is_ok_and(|identity| identity == wanted));
        Ok(self.list()?.into_iter().filter(same).collect())
    }

    /// Makes the directory a shared mount of its own, as iproute2 does, so that pins made in one
    /// mount namespace are seen (and removed) in those that were split off.
    fn prepare(&self) -> Result<()> {
        let directory = &self.0;
        std::fs::create_dir_all(directory).context(|| format!("create {}", directory.display()))?;
        let none = None::<&str>;
        let share = || mount(none, directory, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
        if share().is_err() {
            mount(Some(directory), directory, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
                .context(|| format!("make {} a mount", directory.display()))?;
            share().context(|| format!("share {}", directory.display()))?;
        }
        Ok(())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Refuses what cannot name a namespace.
///
/// # Errors
/// When empty, too long, or with characters that would leave the directory.
pub fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty() || name.len() > 255 || name == "." || name == ".." || name.bytes().any(|byte| byte == b'/' || byte == 0);
    if bad { Err(SetupError::invalid(format!("use {name:?} as namespace name"), "want 1 to 255 bytes without `/`")) } else { Ok(()) }
}

/// Refuses what cannot name an interface (the kernel's dev_valid_name).
///
/// # Errors
/// When empty, longer than 15 bytes, or with `/`, `:`, white space or control characters.
pub fn check_ifname(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > 15
        || name == "."
        || name == ".."
        || name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if bad {
        Err(SetupError::invalid(format!("use {name:?} as interface name"), "want 1 to 15 bytes without `/`, `:` or blanks"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_but_legal_names_pass() {
        for name in ["eth0", "eth1.1", "veth1.2", "a", "123456789012345"] {
            assert!(check_ifname(name).is_ok(), "{name}");
        }
        for name in ["", "1234567890123456", "a/b", "a b", "..", "a:b", "a\nb"] {
            assert!(check_ifname(name).is_err(), "{name}");
        }
        assert!(check_name("../etc").is_err() && check_name("ns1").is_ok());
    }
}
