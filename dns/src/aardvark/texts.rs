//! What `aardvark-dns` prints: usage and versions.
//!
//! The version is that of the original whose behaviour this has, with our own behind the plus sign, where SemVer puts
//! what does not count in a comparison.

use super::args::FLAGS;
use std::fmt::Write as _;

/// The version of aardvark-dns that this is compatible with.
pub const COMPATIBLE: &str = "2.0.0";

/// The name under which netavark starts it.
pub const NAME: &str = "aardvark-dns";

/// The column where descriptions begin.
const COLUMN: usize = 40;

fn version_number() -> String {
    format!("{COMPATIBLE}+slipway.{}", env!("CARGO_PKG_VERSION"))
}

/// What `--version` prints.
#[must_use]
pub fn short_version() -> String {
    format!("{NAME} {}\n", version_number())
}

/// What `version` prints. The build's time is left out, so that one tree gives one program.
#[must_use]
pub fn version() -> String {
    format!(
        "{{\n  \"version\": \"{}\",\n  \"commit\": \"{}\",\n  \"build_time\": \"{}\",\n  \"target\": \"{}\"\n}}\n",
        version_number(),
        option_env!("SLIPWAY_COMMIT").unwrap_or_default(),
        option_env!("SLIPWAY_BUILD_TIME").unwrap_or_default(),
        concat_target(),
    )
}

/// The triple that was built for, as far as the source can tell.
fn concat_target() -> String {
    let library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!("{}-unknown-linux-{library}", std::env::consts::ARCH)
}

/// What `--help` prints.
#[must_use]
pub fn usage() -> String {
    let mut out = format!(
        "Names for the containers of netavark's networks\n\n{SYNOPSIS}\n\nCommands:\n  \
         run      Serve the configuration's networks, in the background\n  \
         version  Print what this build is, as JSON\n  \
         help     Print this text\n\nOptions:\n"
    );
    for flag in FLAGS {
        let mut name = match flag.short {
            Some(letter) => format!("  -{}, ", char::from(letter)),
            None => "      ".to_owned(),
        };
        let _ = write!(name, "--{}", flag.long);
        if let Some(value) = flag.value {
            let _ = write!(name, " <{value}>");
        }
        let default = flag.default.map(|text| format!(" [default: {text}]")).unwrap_or_default();
        let variable = flag.variable.map(|text| format!(" [env: {text}]")).unwrap_or_default();
        let _ = writeln!(out, "{name:<COLUMN$} {}{default}{variable}", flag.help);
    }
    out
}

/// The line that a mistaken command line gets to see too.
pub const SYNOPSIS: &str = "Usage: aardvark-dns [OPTIONS] <COMMAND>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_forms_that_programs_read() {
        assert!(short_version().starts_with("aardvark-dns 2.0.0+slipway."));
        let text = version();
        let keys: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
        assert_eq!(keys, ["version", "commit", "build_time", "target"]);
        assert!(text.starts_with("{\n  \"version\": \"2.0.0+") && text.ends_with("\"\n}\n"), "{text}");
    }

    #[test]
    fn usage_names_every_option() {
        let text = usage();
        assert!(FLAGS.iter().all(|flag| text.contains(&format!("--{}", flag.long))), "{text}");
    }
}
