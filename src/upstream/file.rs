//! Files that somebody else writes: a bound on what is read of them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

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
