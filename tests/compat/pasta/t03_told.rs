//! What the guest is told by DHCP: the same lease as from the original, for each choice of options.

use super::{Original, ours};
use std::path::Path;
use std::process::{Command, Stdio};

/// The lease, in one line.
const SCRIPT: &str = "#!/bin/sh\n[ \"$1\" = bound ] && \
     echo \"$ip $subnet router=$router dns=$dns search=$search mtu=$mtu lease=$lease name=$hostname\"\nexit 0\n";

/// A host with one interface, in namespaces of its own, on which a program serves a DHCP client.
const HOST: &str = "ip link set lo up && ip tuntap add eth0 mode tap && ip address add 192.0.2.7/24 dev eth0 && \
     ip link set eth0 up && ip route add default via 192.0.2.1 && exec \"$@\"";

const CLIENT: &str = "ip link set t0 up && exec busybox udhcpc -i t0 -n -q -f -t 5 -O hostname -s";

const CHOICES: [&[&str]; 12] = [
    &[],
    &["-D", "9.9.9.9"],
    &["--dhcp-dns", "-D", "9.9.9.9"],
    &["--dhcp-dns", "-D", "9.9.9.9", "-D", "8.8.8.8"],
    &["--dhcp-dns", "-D", "none"],
    &["-S", "a.example", "--dhcp-search"],
    &["-S", "a.example"],
    &["-H", "box"],
    &["--fqdn", "box.a.example"],
    &["-m", "0"],
    &["-a", "10.1.2.3", "-m", "1400"],
    &["-a", "10.1.2.3/20", "-g", "10.1.2.1"],
];

/// What the client hears from `program` with these options.
fn lease(program: &[String], options: &[&str], script: &Path) -> String {
    let mut command = Command::new("timeout");
    command.args(["30", "unshare", "-Urn", "sh", "-c", HOST, "host"]).args(program);
    command.args(["-4", "-q", "-I", "t0"]).args(options);
    command.args(["--", "sh", "-c", &format!("{CLIENT} {}", script.display())]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(!text.is_empty(), "{program:?} {options:?}: {output:?}");
    text
}

#[test]
fn a_lease_is_that_of_the_original() {
    let test = "a_lease_is_that_of_the_original";
    let Some(program) = ours(test) else { return };
    if let Some(missing) = slipway_lab::missing(&["busybox", "unshare", "ip"]) {
        println!("SKIP {test}: {missing} is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (script, link) = (dir.path().join("lease"), dir.path().join("pasta"));
    std::fs::write(&script, SCRIPT).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    std::os::unix::fs::symlink(&program, &link).unwrap();
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        println!("SKIP {test}: /dev/net/tun: {error}");
        return;
    }
    let original = Original::find(test).map(|original| original.words("pasta"));
    for options in CHOICES {
        let here = lease(&[link.to_string_lossy().into_owned()], options, &script);
        assert!(here.contains("lease=4294967295"), "{here}");
        if let Some(original) = &original {
            assert_eq!(here, lease(original, options, &script), "{options:?}");
        }
    }
}
