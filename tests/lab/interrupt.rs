//! An end that is asked for while labs stand.
//!
//! A program that dies of a signal drops nothing: holders end with their pipes, but directories stay, and so does
//! every program that waits for no pipe. So what lets labs stand for minutes runs in a child that calls [`watch`] with
//! a pipe from its parent. However the parent dies, the pipe ends; from then on commands that are under way fail, and
//! their callers return, dropping what they hold. Commands that are started after that are those that tidy up: they
//! run as ever.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether the end was asked for.
#[must_use]
pub fn interrupted() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Takes the end of `pipe` as the wish to end.
///
/// # Errors
///
/// When no thread can be started for it.
pub fn watch(mut pipe: impl Read + Send + 'static) -> io::Result<()> {
    let wait = move || {
        let _ = io::copy(&mut pipe, &mut io::sink());
        ASKED.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("watch".to_owned()).spawn(wait).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::Cmd;

    const LIMIT: Duration = Duration::from_secs(20);

    // The wish is the whole process's, and the other tests' commands must not fail of it: a process of its own.
    #[test]
    fn commands_under_way_fail_and_later_ones_run() {
        if std::env::var_os("SLIPWAY_LAB_INTERRUPT").is_none() {
            let here = std::env::current_exe().unwrap().into_os_string();
            let words = [here, "commands_under_way_fail_and_later_ones_run".into()];
            let output = Cmd::new(words).env("SLIPWAY_LAB_INTERRUPT", "1").run(LIMIT).unwrap();
            assert!(output.success() && output.out().contains("1 passed"), "{output}");
            return;
        }
        let mut under_way = Cmd::new(["sleep", "60"]).start().unwrap();
        assert!(!interrupted());
        watch(io::empty()).unwrap();
        let error = under_way.finish(LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert!(interrupted());
        let later = Cmd::new(["sh", "-c", "sleep 0.05; echo tidy"]).ok(LIMIT).unwrap();
        assert_eq!(later.out(), "tidy\n");
    }
}
