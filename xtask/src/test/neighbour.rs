//! A foreign network namespace with a process in it, for as long as the suites run.
//!
//! People's machines have containers of their own. A test that looks at the whole machine instead of what it made
//! itself passes on ours and fails on theirs; with this neighbour it fails on ours, too. By root the namespace has a
//! name and so a mount (`/run/netns`), as those of engines do, which everybody inherits.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::tool::{self, Done};

/// What keeps it: it lives as long as its standard input is open, so that it goes with us however we end, and cleans up
/// behind itself.
const BY_ROOT: &str = r#"
ip netns add "$0" || exit 1
trap 'kill $! 2>/dev/null; wait $!; ip netns delete "$0"' EXIT
trap 'exit 1' INT TERM HUP
ip netns exec "$0" sleep 14400 </dev/null >/dev/null 2>&1 &
echo ready
read -r _
"#;

/// The same without root: a user namespace, and nothing to clean up but the process.
const BY_OTHERS: &str = r#"
trap 'kill $! 2>/dev/null; wait $!' EXIT
trap 'exit 1' INT TERM HUP
unshare --user --map-root-user --net -- sleep 14400 </dev/null >/dev/null 2>&1 &
kill -0 $! || exit 1
echo ready
read -r _
"#;

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Neighbour(Child);

impl Neighbour {
    /// Moves in.
    pub(super) fn new() -> Done<Self> {
        Self::start(if tool::is_root() { BY_ROOT } else { BY_OTHERS })
    }

    fn start(script: &str) -> Done<Self> {
        use std::os::unix::process::CommandExt as _;
        let name = format!("slipway-neighbour-{}", std::process::id());
        let mut command = Command::new("sh");
        // Not of the terminal's group: an interrupt reaches it as the end of its input.
        command.args(["-c", script, &name]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("a neighbour: sh: {error}"))?;
        let mut line = String::new();
        let told = child.stdout.take().map(BufReader::new).map(|mut out| out.read_line(&mut line));
        let neighbour = Self(child);
        match told {
            Some(Ok(_)) if line == "ready\n" => Ok(neighbour),
            _ => Err("a neighbour's network namespace cannot be made".to_owned()),
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_us_and_leaves_nothing() {
        let Ok(neighbour) = Neighbour::new() else {
            println!("SKIP it_goes_with_us_and_leaves_nothing: no network namespace can be made here");
            return;
        };
        let children = format!("/proc/{0}/task/{0}/children", neighbour.0.id());
        let sleeper = std::fs::read_to_string(children).unwrap().trim().to_owned();
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let entered = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            std::fs::read_link(format!("/proc/{sleeper}/ns/net")).is_ok_and(|its| its != ours)
        });
        assert!(entered, "{sleeper} has not entered a namespace of its own");
        drop(neighbour);
        assert!(!std::path::Path::new(&format!("/proc/{sleeper}/ns")).exists());
        assert!(
            !std::path::Path::new(&format!("/run/netns/slipway-neighbour-{}", std::process::id())).exists()
        );
    }

    #[test]
    fn one_that_cannot_move_in_says_so() {
        assert!(Neighbour::start("exit 1").is_err());
    }
}
