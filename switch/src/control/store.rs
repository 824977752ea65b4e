//! The state file: written whole to a temporary name, synced, renamed; then added to, until it is long.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use weft_control::{Journal, Model, decode};

/// The file of one daemon.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// What this daemon wrote; a file of one before it is never added to.
    open: Option<(File, Journal)>,
}

impl Store {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// What was saved last; empty when nothing was.
    pub(crate) fn load(&self) -> io::Result<Model> {
        match fs::read(&self.path) {
            Ok(bytes) => decode(&bytes).map_err(|error| io::Error::other(format!("{}: {error}", self.path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Model::default()),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))),
        }
    }

    /// When it returns, the model survives a crash. After an error, what was saved before does.
    pub(crate) fn save(&mut self, model: &Model) -> io::Result<()> {
        match self.open.take() {
            Some((mut file, journal)) if !journal.is_long() => {
                let (next, bytes) = journal.change(model).map_err(io::Error::other)?;
                if bytes.is_empty() {
                    self.open = Some((file, journal));
                    return Ok(());
                }
                if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
                    // Nobody is told that this was saved: it must not be there after a restart.
                    if file.set_len(journal.length() as u64).and_then(|()| file.sync_data()).is_ok() {
                        self.open = Some((file, journal));
                    }
                    return Err(error);
                }
                self.open = Some((file, next));
                Ok(())
            }
            _ => self.write_whole(model),
        }
    }

    fn write_whole(&mut self, model: &Model) -> io::Result<()> {
        let (journal, bytes) = Journal::begin(model).map_err(io::Error::other)?;
        let temporary = self.path.with_extension("json.tmp");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().append(true).create_new(true).open(&temporary)?;
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, &self.path)) {
            drop(fs::remove_file(&temporary));
            return Err(error);
        }
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        self.open = Some((file, journal));
        Ok(())
    }
}
