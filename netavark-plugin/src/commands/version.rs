//! `version`: what this is, for bug reports.

use crate::cli;
use crate::error::Result;
use crate::output::print;
use crate::spec::options::COMPAT_VARIABLE;
use serde::Serialize;
use slipway_host::environment;

#[derive(Serialize)]
struct Version {
    /// Of the contract that is kept.
    version: &'static str,
    commit: &'static str,
    build_time: &'static str,
    target: &'static str,
    default_fw_driver: &'static str,
    /// Who keeps it.
    implementation: &'static str,
}

pub(super) fn run() -> Result<()> {
    let version = Version {
        version: cli::version(environment::variable(COMPAT_VARIABLE).as_deref()),
        commit: env!("NETAVARK_COMMIT"),
        build_time: env!("NETAVARK_BUILD_TIME"),
        target: env!("NETAVARK_TARGET"),
        default_fw_driver: "nftables",
        implementation: concat!("slipway ", env!("CARGO_PKG_VERSION")),
    };
    print(&serde_json::to_string_pretty(&version)?);
    Ok(())
}
