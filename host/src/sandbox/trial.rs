//! What is left to a program that has settled: for the tests of each role, with the role's own needs.

use crate::sys::landlock;
use crate::sys::proc::{fork_child, wait_for};
use nix::sys::wait::WaitStatus;
use std::fs::File;
use std::io;
use std::path::Path;

/// Which of `paths`, eight at most, a process can still open for reading once it has called `settle`. `None`: this
/// kernel has no Landlock, so the files stay in sight.
///
/// # Errors
/// The kernel's; a process that did not live to the end of it.
pub fn opened<'p>(settle: impl FnOnce(), paths: &[&'p Path]) -> io::Result<Option<Vec<&'p Path>>> {
    if landlock::version().is_err() {
        return Ok(None);
    }
    let bits = |opens: &dyn Fn(&Path) -> bool| {
        paths
            .iter()
            .zip(0..8)
            .filter(|(path, _)| opens(path))
            .fold(0_u8, |bits, (_, place)| bits | 1 << place)
    };
    let child = fork_child(|| {
        settle();
        bits(&|path| File::open(path).is_ok())
    })?;
    match wait_for(child)? {
        WaitStatus::Exited(_, status) => {
            let open = |(path, place)| (status & (1 << place) != 0).then_some(path);
            Ok(Some(paths.iter().copied().zip(0..8).filter_map(open).collect()))
        }
        status => Err(io::Error::other(format!("{status:?}"))),
    }
}
