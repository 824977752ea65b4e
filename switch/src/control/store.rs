//! The state file: written whole to a temporary name, synced, renamed.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use weft_control::{Model, decode, encode};

/// The file of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Store(PathBuf);

impl Store {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What was saved last; empty when nothing was.
    pub(crate) fn load(&self) -> io::Result<Model> {
        match fs::read(&self.0) {
            Ok(bytes) => decode(&bytes).map_err(|error| io::Error::other(format!("{}: {error}", self.0.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Model::default()),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", self.0.display()))),
        }
    }

    /// When it returns, the model survives a crash.
    pub(crate) fn save(&self, model: &Model) -> io::Result<()> {
        let bytes = encode(model).map_err(io::Error::other)?;
        let temporary = self.0.with_extension("json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.0)?;
        File::open(self.0.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}
