//! Control groups, of version 2 or 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// A cgroup of one controller, below the one of this program; removed when dropped.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    /// None where it cannot be made. `v2` and `v1` are the files that take the limit.
    pub(crate) fn make(controller: &str, limit: u64, v2: &[&str], v1: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let root = Path::new("/sys/fs/cgroup");
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|name| name == controller).then_some(path)
        });
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kube-issuer-gateway-{}-{number}", std::process::id());
        let (parent, files) = match own {
            Some(path) => (root.join(controller).join(path.trim_start_matches('/')), v1),
            None => (unified(root)?, v2),
        };
        fs::create_dir(parent.join(&name)).ok()?;
        let cgroup = Self(parent.join(name));
        let set = |file: &&str| fs::write(cgroup.0.join(file), limit.to_string());
        files.iter().all(|file| set(file).is_ok()).then_some(cgroup)
    }
}

/// The cgroup of v2 that this program is in.
fn unified(root: &Path) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    root.join("cgroup.controllers").exists().then(|| root.join(path))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel may need a moment after the end of the last process in it.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("attack: cannot remove {}", self.0.display());
    }
}
