//! Where things are kept.

use std::path::{Path, PathBuf};

/// Directories and socket of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Dirs {
    /// Socket, pins: gone after a reboot.
    pub(crate) run: PathBuf,
    /// The state file.
    pub(crate) state: PathBuf,
    /// The socket, where it is not in `run`.
    socket: Option<PathBuf>,
}

impl Dirs {
    /// `--state-dir` holds everything; else /run/weft and /var/lib/weft, or their XDG counterparts.
    pub(crate) fn new(state_dir: Option<&Path>) -> Self {
        if let Some(directory) = state_dir {
            return Self { run: directory.to_owned(), state: directory.to_owned(), socket: None };
        }
        if nix::unistd::geteuid().is_root() {
            return Self { run: "/run/weft".into(), state: "/var/lib/weft".into(), socket: None };
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let uid = nix::unistd::geteuid();
        let run = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| std::env::temp_dir().join(format!("weft-{uid}")));
        let home = variable("HOME").unwrap_or_else(std::env::temp_dir);
        let state = variable("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state"));
        Self { run: run.join("weft"), state: state.join("weft"), socket: None }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run.join("api.sock"))
    }

    /// Listens, or finds the daemon, somewhere else.
    pub(crate) fn set_socket(&mut self, socket: PathBuf) {
        self.socket = Some(socket);
    }

    /// Pins of sandbox namespaces, by sandbox id.
    pub(crate) fn pins(&self) -> PathBuf {
        self.run.join("netns")
    }

    /// The namespace in which the switch's ends of veth pairs live.
    pub(crate) fn switch_pin(&self) -> PathBuf {
        self.run.join("switch.netns")
    }

    /// Files that a sandbox finds in its /etc.
    pub(crate) fn etc_of(&self, sandbox_id: &str) -> PathBuf {
        self.etc().join(sandbox_id)
    }

    pub(crate) fn etc(&self) -> PathBuf {
        self.run.join("etc")
    }

    /// Output of containers and detached commands, with streams and times. It stays as long as they do, over a reboot too.
    pub(crate) fn output_of(&self, sandbox_id: &str) -> PathBuf {
        self.logs().join(format!("{sandbox_id}.out"))
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Process that holds a rootless daemon's namespaces.
    pub(crate) fn keeper(&self) -> PathBuf {
        self.run.join("keeper")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.state.join("state.json")
    }

    /// Makes them, for the owner only.
    pub(crate) fn create(&self) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        for directory in [self.run.clone(), self.state.clone(), self.pins(), self.etc(), self.state.join("logs")] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        Ok(())
    }
}
