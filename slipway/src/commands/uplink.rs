//! `slipway uplink`: runs the uplink, or shows what one serves.

use super::{complain, log_level};
use crate::cli::UplinkArgs;
use crate::uplink::door::Door;
use crate::uplink::starter::Starter;
use crate::uplink::supervisor::Supervisor;
use serde_json::{Value, json};
use slipway_host::sandbox::files::Place;
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::{self, Needs};
use slipway_host::strerror::words;
use slipway_host::user;
use slipway_runtime::logging;
use slipway_uplink::address;
use slipway_uplink::client::Client;
use slipway_uplink::wire::Request;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Runs `slipway uplink`.
#[must_use]
pub fn main(args: &UplinkArgs) -> ExitCode {
    let path = args.socket.clone().or_else(address::path);
    let done = if args.show { show(path.as_deref()) } else { serve(args, path.as_deref()) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            complain(&line);
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &UplinkArgs, path: Option<&Path>) -> Result<(), String> {
    logging::init(log_level(args.quiet, args.verbose));
    let started =
        |error: std::io::Error| format!("cannot start the process that starts others: {}", words(&error));
    let starter = Starter::new().map_err(started)?;
    let door = Door::open(path)?;
    let ended = |error: std::io::Error| format!("the uplink has ended: {}", words(&error));
    let supervisor = Supervisor::new(door, starter, args.host_loopback).map_err(ended)?;
    settle(path);
    supervisor.run().map_err(ended)
}

/// Gives up what the supervisor does not need: it removes sockets, its own and those at which engines told of new
/// addresses, and opens one file, to have a descriptor in reserve.
fn settle(path: Option<&Path>) {
    let mut files = vec![Place::read("/dev/null"), Place::removal("/run")];
    let own = path.and_then(Path::parent).map(Path::to_owned);
    files.extend(user::runtime_directory().into_iter().chain(own).map(Place::removal));
    sandbox::settle(&Needs { files: &files, capabilities: &[], calls: Profile::Uplink });
}

fn show(path: Option<&Path>) -> Result<(), String> {
    let path = path.ok_or("where does it listen? Set XDG_RUNTIME_DIR, or give --socket")?;
    let client = Client::connect(path)
        .map_err(|error| format!("no uplink answers at {}: {}", path.display(), words(&error)))?;
    let status: Value = client.ask(&Request::Status, &[]).map_err(|failure| failure.to_string())?;
    let _ = std::io::stdout().write_all(listing(&status).as_bytes());
    Ok(())
}

/// What a reply to `status` says, for people.
fn listing(status: &Value) -> String {
    let mut out = String::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let networks = list(&status["networks"]);
    if networks.is_empty() {
        out.push_str("no networks\n");
    }
    for entry in networks {
        let network = &entry["network"];
        let state = match entry["pid"].as_u64() {
            Some(pid) => format!("process {pid}"),
            None => "waits for its TAP".to_owned(),
        };
        let internal = if network["internal"] == json!(true) { ", internal" } else { "" };
        let _ = writeln!(out, "network {} ({state}{internal})", text(&network["name"]));
        for subnet in list(&network["subnets"]) {
            let _ =
                writeln!(out, "  subnet {} gateway {}", text(&subnet["subnet"]), text(&subnet["gateway"]));
        }
        let counters = &entry["counters"];
        if counters.is_object() {
            let of = |name: &str| number(&counters[name]);
            let _ = writeln!(
                out,
                "  {} flows, {} bytes from containers, {} bytes to them",
                of("flows"),
                of("bytes_in"),
                of("bytes_out")
            );
        }
        for container in list(&entry["containers"]) {
            let addresses: Vec<_> = list(&container["addresses"]).iter().map(text).collect();
            let _ = writeln!(out, "  container {} {}", text(&container["name"]), addresses.join(" "));
        }
        let rules = list(&status["rules"]);
        for rule in rules.iter().filter(|rule| rule["network_id"] == network["id"]) {
            let (accepted, refused) = (number(&rule["accepted"]), number(&rule["refused"]));
            let _ = writeln!(out, "  port {} ({accepted} accepted, {refused} refused)", text(&rule["rule"]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_reads_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("uplink.sock");
        std::fs::write(&own, "").unwrap();
        let all = ["/etc/passwd", "/usr/bin/env", "/proc/self/environ", "/dev/null"].map(Path::new);
        let all: Vec<_> = all.into_iter().chain([own.as_path()]).collect();
        match sandbox::trial::opened(|| settle(Some(&own)), &all).unwrap() {
            Some(opened) => assert_eq!(opened, [Path::new("/dev/null")]),
            None => println!("SKIP the_supervisor_reads_nothing: this kernel has no Landlock"),
        }
    }

    #[test]
    fn a_listing_names_everything_and_survives_nonsense() {
        let status = json!({
            "networks": [{
                "network": {"id": "n1", "name": "web", "internal": true,
                            "subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}]},
                "containers": [{"id": "c1", "name": "shop", "addresses": ["10.89.0.2", "fd00::2"]}],
                "pid": 7,
                "counters": {"flows": 1, "bytes_in": 2, "bytes_out": 3},
            }, {"network": {"name": "idle"}}],
            "rules": [{"network_id": "n1", "rule": "8080:10.89.0.2:80/tcp", "accepted": 4}],
        });
        assert_eq!(
            listing(&status),
            "network web (process 7, internal)\n  subnet 10.89.0.0/24 gateway 10.89.0.1\n  \
             1 flows, 2 bytes from containers, 3 bytes to them\n  container shop 10.89.0.2 fd00::2\n  \
             port 8080:10.89.0.2:80/tcp (4 accepted, 0 refused)\nnetwork idle (waits for its TAP)\n"
        );
        assert_eq!(listing(&json!({ "networks": [] })), "no networks\n");
        assert_eq!(listing(&json!(7)), "no networks\n");
    }
}
