//! Drivers of others.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use slipway_lab::LIMIT;

use crate::host;
use crate::place::{Host, error, line};
use crate::request::{Join, publish, request};

fn plugin(host: &Host, name: &str, script: &str) {
    let path = host.machine.dir().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_plugin_is_asked_for_networks_of_its_kind() {
    let host = host!("a_plugin_is_asked_for_networks_of_its_kind");
    let container = host.container();
    let dir = host.machine.dir().to_string_lossy().into_owned();
    let answer = r#"{"interfaces":{"x0":{"mac_address":"m"}}}"#;
    plugin(
        &host,
        "odd",
        &format!("cat > {dir}/told; echo said $1 $2 >&2; [ $1 = teardown ] || echo '{answer}'"),
    );
    let net = Join::new("odd", "net", "x", &["10.88.0.1/16"]);
    let request = publish(request("one", &[net]), &[("", 8080, 80, "tcp", 1)]);
    let path = container.path();
    let call = |command: &str| {
        let words = ["--plugin-directory", "/nonexistent", "--plugin-directory", &dir, command, &path];
        host.cmd(&words).input(line(&request)).run(LIMIT).unwrap()
    };
    let output = call("setup");
    assert!(output.success(), "{output}");
    assert_eq!(output.err(), format!("said setup {path}\n"), "its stderr is the caller's");
    let status: Value = serde_json::from_str(&output.out()).unwrap();
    assert_eq!(status["net"]["interfaces"]["x0"]["mac_address"], "m");
    let told = std::fs::read_to_string(host.machine.dir().join("told")).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["network"]["name"], "net");
    assert_eq!(told["network_options"]["aliases"], Value::Null, "absent options are null");
    assert_eq!(told["port_mappings"], request["port_mappings"]);
    let output = call("teardown");
    assert!(output.success(), "{output}");
    assert_eq!(output.all(), format!("said teardown {path}\n"));

    plugin(&host, "odd", &format!("cat > /dev/null; echo '{}'; exit 5", json!({"error": "no luck"})));
    for command in ["setup", "teardown"] {
        assert_eq!(error(&call(command)), "plugin \"odd\" failed: exit code 5, message: no luck");
    }
    let text = host.refused(&container, &request);
    assert_eq!(text, "unknown network driver \"odd\"");
}

#[test]
fn what_a_plugin_made_is_undone_when_a_later_network_fails() {
    let host = host!("what_a_plugin_made_is_undone_when_a_later_network_fails");
    let container = host.container();
    let dir = host.machine.dir().to_string_lossy().into_owned();
    plugin(
        &host,
        "odd",
        &format!("cat > /dev/null; echo $1 >> {dir}/calls; [ $1 = teardown ] || echo '{{}}'"),
    );
    let bad = Join::bridge("second", "podman0", &["10.88.0.1/16"])
        .own("static_mac", "00:00:00:00:00:00")
        .own("interface_name", "eth1");
    let request = request("one", &[Join::new("odd", "first", "x", &["10.89.0.1/16"]), bad]);
    let words = ["--plugin-directory", &dir, "setup", &container.path()];
    let output = host.cmd(&words).input(line(&request)).run(LIMIT).unwrap();
    assert!(error(&output).contains("Cannot assign requested address"), "{output}");
    assert_eq!(std::fs::read_to_string(host.machine.dir().join("calls")).unwrap(), "setup\nteardown\n");
}
