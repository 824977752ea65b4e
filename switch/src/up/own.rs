//! The directory of a `weft up`. It is locked while that runs, so the next one knows what a killed one has left.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PREFIX: &str = "weft-up-";
const LOCK: &str = "lock";

/// The directory of this process; it goes with it.
pub(super) struct Own {
    pub(super) path: PathBuf,
    lock: Option<File>,
}

impl Own {
    pub(super) fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display())))?;
        Ok(Self { path, lock: None })
    }

    /// To be called when all that shares our descriptors was forked: a lock is held as long as anybody has it open.
    pub(super) fn lock(&mut self) -> io::Result<()> {
        let unseen = self.path.join("lock.new");
        let file = File::create_new(&unseen)?;
        file.lock()?;
        fs::rename(unseen, self.path.join(LOCK))?;
        self.lock = Some(file);
        Ok(())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Removes the namespaces, processes and files of each `weft up` of this user that was killed.
pub(super) fn clear_dead() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        match clear(&path) {
            Ok(true) => tracing::info!(directory = %path.display(), "removed what a `weft up` that was killed has left"),
            Ok(false) => {}
            Err(error) => tracing::warn!(directory = %path.display(), %error, "cannot remove what a `weft up` that was killed has left"),
        }
    }
}

/// Whether there was something to remove. Others' directories, those in use and those never locked are left alone.
fn clear(path: &Path) -> io::Result<bool> {
    let directory = fs::symlink_metadata(path)?;
    if !directory.is_dir() || directory.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(false);
    }
    let lock = match File::open(path.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        // Its owner may have ended, and removed it, since.
        Ok(()) if !path.join(LOCK).exists() => return Ok(false),
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // A process of its own: without root it enters the namespaces of the one that was killed.
    let status = Command::new("/proc/self/exe").args(["up", "--clear"]).arg(path).env("WEFT_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("`weft up --clear` ended with {status}")));
    }
    fs::remove_dir_all(path).map(|()| true)
}
