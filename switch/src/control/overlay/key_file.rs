//! Reading the key file of an encrypted overlay: only what nobody else may read is a secret.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use vxlan::crypt::Secret;
use weft_control::{Code, ControlError, Result, overlay::parse_keys};

/// Two lines of keys, with comments.
const BYTES_MOST: u64 = 4096;

/// Epochs with their secrets, the one to send with first.
pub(super) fn read(path: &Path) -> Result<Vec<(u32, Secret)>> {
    let failed = |what: String| {
        ControlError::new(Code::Invalid, path.display().to_string(), format!("key file {}: {what}", path.display()))
            .hint("make one with `(umask 077; openssl rand -hex 32 > FILE)`, the same on all nodes, readable by the daemon's user alone")
    };
    let text = open(path).and_then(|file| checked(file).map_err(io::Error::other));
    parse_keys(&text.map_err(|error| failed(error.to_string()))?).map_err(failed)
}

/// A FIFO does not make us wait.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

fn checked(file: File) -> std::result::Result<String, String> {
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no regular file".into());
    }
    if about.mode() & 0o077 != 0 {
        return Err(format!("others may read or write it (mode {:04o}), want 0600", about.mode() & 0o7777));
    }
    if about.uid() != 0 && about.uid() != nix::unistd::geteuid().as_raw() {
        return Err(format!("it belongs to user {}, neither root nor the daemon's", about.uid()));
    }
    if about.len() > BYTES_MOST {
        return Err(format!("it is longer than {BYTES_MOST} bytes"));
    }
    let mut text = String::new();
    file.take(BYTES_MOST).read_to_string(&mut text).map_err(|_| "it is not text".to_owned())?;
    Ok(text)
}
