//! The answer to a call, on standard output, in one line. The caller reads it only when the program has ended.

use std::io::Write as _;

/// Prints a line on standard output. A caller that has gone away does not want it.
pub(crate) fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()) {
        log::debug!("nobody reads the answer: {error}");
    }
}
