//! Files that are bound over those of a sandbox's /etc.

use std::{
    fs::{OpenOptions, Permissions, create_dir_all},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use weft_control::names::Files;

/// Writes them in place: a bind mount holds the inode, so a renamed file would not be seen inside.
pub(super) fn write(directory: &Path, files: &Files) -> io::Result<()> {
    create_dir_all(directory)?;
    [("resolv.conf", &files.resolv_conf), ("hosts", &files.hosts), ("hostname", &files.hostname)].into_iter().try_for_each(|(name, text)| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join(name))?;
        // Readable by whatever user the sandbox's processes become, whatever our umask.
        file.set_permissions(Permissions::from_mode(0o644))?;
        // Never empty on the way: who reads in between sees old lines, new lines, or both.
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    })
}
