//! Files that somebody else writes: a bound on what is read of them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::io::Errno;

/// The contents of a file; an error when it is longer than `max` bytes.
pub(super) fn read_file(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut contents)?;
    if contents.len() > max {
        return Err(io::Error::other(format!("it is longer than {max} bytes")));
    }
    Ok(contents)
}

/// Whether the process, or the machine, has no descriptor left: getrlimit(2), `RLIMIT_NOFILE`.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
