//! Files below a folder, each replaced as a whole.
//!
//! All of them are written beside their places first, and only then renamed, in the order in which they
//! are given: what fails before that changes no file. Nothing is ever deleted but a temporary file of this
//! run.
//!
//! Invariant: no symbolic link below the folder is followed, whatever is swapped meanwhile: each step down
//! opens one name in a folder that is open, and never a path.
//!
//! Sources: open(2) (`O_NOFOLLOW`), rename(2), fsync(2).

use std::fmt;
use std::fs::{File, Permissions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::documents::MAX_SERVED_BYTES;

/// What web servers need, whatever the umask is.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// A file to be.
pub(super) struct Content {
    /// Relative to the folder; plain names with slashes between them.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
}

/// Why the files could not be written.
#[derive(Debug)]
pub(crate) enum Error {
    /// The folder itself.
    Open(PathBuf, io::Error),
    /// Something below the folder is a symbolic link, or no folder.
    NoFolder(PathBuf),
    /// In the place of the file there is something else.
    NoFile(PathBuf),
    MakeFolder(PathBuf, io::Error),
    Read(PathBuf, io::Error),
    Write(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, cause) => write!(out, "cannot open the folder {path:?}: {cause}"),
            Self::NoFolder(path) => {
                write!(out, "{path:?} is a symbolic link or no folder, and is not followed")
            }
            Self::NoFile(path) => {
                write!(out, "{path:?} is a symbolic link or no file, and is not replaced")
            }
            Self::MakeFolder(path, cause) => {
                write!(out, "cannot make the folder {path:?}: {cause}")
            }
            Self::Read(path, cause) => write!(out, "cannot read {path:?}: {cause}"),
            Self::Write(path, cause) => write!(out, "cannot write {path:?}: {cause}"),
        }
    }
}

/// An error when `folder` is not one, or cannot be opened.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    open_root(folder).map(|_| ())
}

/// Writes those files whose bytes are not these; returns their paths.
pub(super) fn write(folder: &Path, files: &[Content]) -> Result<Vec<String>, Error> {
    let mut written = Vec::new();
    for content in files {
        let (parent, place) = parent(folder, content)?;
        if !place.holds(&parent, &content.bytes)? {
            written.push((Temporary::write(parent, &place, &content.bytes)?, place, &content.path));
        }
    }
    let mut changed = Vec::new();
    for (temporary, place, path) in written {
        temporary.put_in(&place)?;
        changed.push(path.clone());
    }
    Ok(changed)
}

/// Where a file is, or will be.
struct Place {
    /// In the folder that contains it.
    name: String,
    /// For errors.
    path: PathBuf,
}

/// The folder of `content`, which is made if it is not there.
fn parent(folder: &Path, content: &Content) -> Result<(OwnedFd, Place), Error> {
    let mut open = open_root(folder)?;
    let mut path = folder.to_owned();
    let (parents, name) = match content.path.rsplit_once('/') {
        Some((parents, name)) => (Some(parents), name),
        None => (None, content.path.as_str()),
    };
    for name in parents.into_iter().flat_map(|parents| parents.split('/')) {
        path.push(name);
        open = open_or_make(&open, name, &path)?;
    }
    path.push(name);
    Ok((open, Place { name: name.to_owned(), path }))
}

/// `folder` itself may be a symbolic link: it is the word of whoever runs the program.
fn open_root(folder: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = openat(CWD, folder, flags, Mode::empty());
    open.map_err(|errno| Error::Open(folder.to_owned(), errno.into()))
}

fn open_or_make(parent: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(parent, name, flags, Mode::empty());
    let error = |cause| Error::MakeFolder(path.to_owned(), cause);
    match open() {
        Ok(folder) => Ok(folder),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(Error::NoFolder(path.to_owned())),
        Err(Errno::NOENT) => {
            mkdirat(parent, name, Mode::from_raw_mode(FOLDER_MODE))
                .map_err(|errno| error(errno.into()))?;
            let folder = File::from(open().map_err(|errno| error(errno.into()))?);
            folder.set_permissions(Permissions::from_mode(FOLDER_MODE)).map_err(error)?;
            Ok(folder.into())
        }
        Err(errno) => Err(Error::Open(path.to_owned(), errno.into())),
    }
}

impl Place {
    /// Whether there is a file with these bytes.
    fn holds(&self, parent: &OwnedFd, bytes: &[u8]) -> Result<bool, Error> {
        let error = |cause: io::Error| Error::Read(self.path.clone(), cause);
        // A FIFO without a writer must not be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(parent, self.name.as_str(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::LOOP | Errno::NXIO) => return Err(Error::NoFile(self.path.clone())),
            Err(errno) => return Err(error(errno.into())),
        };
        if !file.metadata().map_err(error)?.is_file() {
            return Err(Error::NoFile(self.path.clone()));
        }
        let limit = u64::try_from(MAX_SERVED_BYTES).unwrap_or(u64::MAX);
        let mut held = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut held).map_err(error)?;
        Ok(held == bytes)
    }
}

/// A file beside its place, deleted when dropped.
struct Temporary {
    parent: OwnedFd,
    /// `None`: it has been renamed.
    name: Option<String>,
}

impl Temporary {
    /// Writes `bytes` to the disk.
    fn write(parent: OwnedFd, place: &Place, bytes: &[u8]) -> Result<Self, Error> {
        let error = |cause: io::Error| Error::Write(place.path.clone(), cause);
        // Random, so that two runs at the same time do not write to the same file.
        let name = format!(".kube-issuer-gateway-{:016x}.tmp", RandomState::new().hash_one(0));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&parent, name.as_str(), flags, Mode::from_raw_mode(FILE_MODE));
        let mut file = File::from(file.map_err(|errno| error(errno.into()))?);
        let temporary = Self { parent, name: Some(name) };
        file.set_permissions(Permissions::from_mode(FILE_MODE)).map_err(error)?;
        file.write_all(bytes).map_err(error)?;
        file.sync_all().map_err(error)?;
        Ok(temporary)
    }

    fn put_in(mut self, place: &Place) -> Result<(), Error> {
        let error = |errno: Errno| Error::Write(place.path.clone(), errno.into());
        if let Some(name) = &self.name {
            renameat(&self.parent, name.as_str(), &self.parent, place.name.as_str())
                .map_err(error)?;
        }
        self.name = None;
        // The rename is done; not every file system can say when it is on the disk.
        let _ = rustix::fs::fsync(&self.parent);
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // What fails was reported as the reason why it was not renamed.
            let _ = unlinkat(&self.parent, name.as_str(), AtFlags::empty());
        }
    }
}
