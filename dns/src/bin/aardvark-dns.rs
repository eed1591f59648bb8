//! The binary: everything is in the library.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next();
    let words: Vec<_> = words.collect();
    if program.as_deref().and_then(|name| Path::new(name).file_name())
        == Some(OsStr::new(slipway_manual::PROGRAM))
    {
        return slipway_dns::aardvark::docs::manual().main(&words);
    }
    ExitCode::from(slipway_dns::aardvark::main(&words))
}
