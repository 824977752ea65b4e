//! Network namespaces as handles.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    error::{Context, Result, SetupError},
    link::Links,
};

/// An open network namespace: it exists as long as the handle does.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// By path: a bind mount, or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// When there is no namespace at that path.
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).context(|| format!("open network namespace {}", path.display()))?;
        let this = Self { fd: file.into() };
        this.check().map_err(|error| SetupError::new(format!("use {} as network namespace", path.display()), error))?;
        Ok(this)
    }

    /// The namespace of a process.
    ///
    /// # Errors
    /// When there is no such process, or it is not ours to look into.
    pub fn open_pid(pid: i32) -> Result<Self> {
        Self::open_path(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace this thread is in.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self> {
        Self::open_path("/proc/thread-self/ns/net")
    }

    /// Makes a namespace with lo up and pins it by a bind mount at `path`, as `ip netns add` does.
    ///
    /// # Errors
    /// When the path exists already or the kernel refuses; nothing is left then.
    pub fn create_pinned(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        File::create_new(&path).context(|| format!("create {}", path.display()))?;
        let result = Self::create_at(path.clone());
        if result.is_err() {
            Self::unpin(&path).ok();
        }
        result
    }

    fn create_at(path: PathBuf) -> Result<Self> {
        on_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET).context(|| "create a network namespace".into())?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .context(|| format!("pin the namespace at {}", path.display()))?;
            Links::open()?.set_up("lo", true)?;
            Self::current()
        })
    }

    /// Takes the pin away; the namespace lives on while processes or descriptors hold it.
    ///
    /// # Errors
    /// When nothing is pinned there.
    pub fn unpin(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        // EINVAL: the file is there but nothing is mounted on it (a half-made one).
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => return Err(SetupError::new(format!("unpin {}", path.display()), error)),
        }
        std::fs::remove_file(path).context(|| format!("remove {}", path.display()))
    }

    /// Runs `work` inside, on a thread that is then thrown away.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or as `work` says.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).context(|| "enter the network namespace".into())?;
            work()
        })
    }

    /// What tells one namespace from another: device and inode (namespaces(7)).
    ///
    /// # Errors
    /// When the handle cannot be looked at.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let meta = File::from(self.fd.try_clone()?).metadata()?;
        Ok((meta.dev(), meta.ino()))
    }

    /// Processes inside, by their /proc entries.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        let Ok(identity) = self.identity() else { return Vec::new() };
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let mut pids: Vec<i32> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| (meta.dev(), meta.ino()) == identity))
            .collect();
        pids.sort_unstable();
        pids
    }

    fn check(&self) -> io::Result<()> {
        // setns(2) refuses what is not a network namespace; NS_GET_NSTYPE says so without entering.
        if crate::sys::namespace_type(self.as_fd())? == CloneFlags::CLONE_NEWNET.bits() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace"))
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` on a thread of its own.
pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).stack_size(256 * 1024).spawn_scoped(scope, work);
        let thread = thread.context(|| "start a thread".into())?;
        thread.join().unwrap_or_else(|_| Err(SetupError::invalid("work in the namespace", "the thread panicked")))
    })
}
