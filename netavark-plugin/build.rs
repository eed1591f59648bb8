//! Stamps the program with what `netavark version` shows: the target, the moment of the build and the commit, as far
//! as the build knows them (`SLIPWAY_COMMIT`, `SOURCE_DATE_EPOCH`).

use std::time::{Duration, SystemTime};

#[path = "src/rfc3339.rs"]
mod rfc3339;

#[expect(clippy::disallowed_methods, reason = "a build happens at a moment, and nothing else is dated by it")]
fn main() {
    for variable in ["SOURCE_DATE_EPOCH", "SLIPWAY_COMMIT"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    for file in ["build.rs", "src/rfc3339.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let asked = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let moment = Duration::from_secs(asked.unwrap_or_else(now));
    println!("cargo::rustc-env=NETAVARK_BUILD_TIME={}", rfc3339::utc(moment));
    println!("cargo::rustc-env=NETAVARK_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo::rustc-env=NETAVARK_COMMIT={}", std::env::var("SLIPWAY_COMMIT").unwrap_or_default());
}
