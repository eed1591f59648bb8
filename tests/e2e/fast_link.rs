//! The fast link between our `gvproxy` and our `gvforwarder`: what crosses it, and what becomes of that for machines
//! that know nothing of it. Its bytes are tested where they are read, and in `compat_gvproxy`.

use super::gvforwarder::{Guest, gvproxy, lab, nowhere, url};
use super::machine::Machine;
use slipway_lab::{Cmd, LIMIT, Lab, Running, WORLD4, skip};
use std::path::{Path, PathBuf};

const SIZE: usize = 8 << 20;
const IS_FAST: &str = "msg=\"the link is fast\"";

/// A file of bytes that do not repeat, and its sum.
fn file(lab: &Lab) -> (PathBuf, String) {
    let path = lab.home().join("file");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let bytes: Vec<u8> = words.take(SIZE / 8).flatten().collect();
    std::fs::write(&path, bytes).unwrap();
    let sum = lab.host(["sh", "-c", &format!("sha256sum < {}", path.display())]).run(LIMIT).unwrap();
    (path, sum.out())
}

/// A machine whose forwarder has said that its link is fast, with an address that begins so.
fn fast<'a>(lab: &'a Lab, mac: &str, address: &str) -> (Guest<'a>, Running) {
    let guest = Guest::new(lab);
    let mut forwarder = guest.forwarder(nowhere(), &["-debug", "-mac", mac, "-url", &url(lab)]);
    guest.has(&mut forwarder, address);
    forwarder.until(LIMIT, |_| guest.sh("ip route").contains("default")).unwrap();
    assert!(forwarder.stderr().contains(IS_FAST), "{}", forwarder.stderr());
    (guest, forwarder)
}

/// A server that gives the file to its first client.
fn gives(cmd: impl Fn(&str) -> Cmd, to: &str, port: u16, file: &Path) -> Running {
    let script = format!("exec ncat -l --send-only {to} {port} < {}", file.display());
    Running::server(cmd(&script), "tcp", port).unwrap()
}

#[test]
fn what_crosses_a_fast_link_is_what_was_sent() {
    let Some(lab) = lab("what_crosses_a_fast_link_is_what_was_sent", &["ncat"], Vec::new()) else { return };
    let (file, sum) = file(&lab);
    let _network = gvproxy(&lab, &["-mtu", "1500", "-ssh-port", "41119"]);
    let (guest, _forwarder) = fast(&lab, "5a:94:ef:e4:0c:ee", "192.168.127.2/24");
    let _down = gives(|script| lab.world(["sh", "-c", script]), WORLD4, 9000, &file);
    let up = lab.world(["sh", "-c", &format!("ncat -l --recv-only {WORLD4} 9001 | sha256sum")]);
    let mut up = Running::server(up, "tcp", 9001).unwrap();
    assert_eq!(guest.sh(&format!("ncat --recv-only {WORLD4} 9000 | sha256sum")), sum, "down");
    guest.sh(&format!("ncat --send-only {WORLD4} 9001 < {}", file.display()));
    assert_eq!(up.finish(LIMIT).unwrap().expect("it has all").out(), sum, "up");
    // A published port.
    let _service = gives(|script| guest.container.cmd(["sh", "-c", script]), "0.0.0.0", 22, &file);
    let script = "ncat --recv-only 127.0.0.1 41119 | sha256sum";
    let fetched = lab.host(["sh", "-c", script]).run(LIMIT).unwrap();
    assert_eq!(fetched.out(), sum, "{fetched}");
    // Packets whose checksums are nobody's to leave open, whole and in fragments.
    let pings =
        guest.sh("ping -c 2 -i 0.2 -W 5 -s 1400 192.168.127.1; ping -c 2 -i 0.2 -W 5 -s 20000 192.168.127.1");
    assert_eq!(pings.matches(" 0% packet loss").count(), 2, "{pings}");
}

#[test]
fn fast_machines_and_others_reach_each_other() {
    let test = "fast_machines_and_others_reach_each_other";
    let Some(lab) = lab(test, &["ncat"], Vec::new()) else { return };
    if !lab.by_root() {
        return skip(test, "only root opens a TAP in the container for it").unwrap_or_default();
    }
    let (file, sum) = file(&lab);
    let socket = lab.home().join("qemu.sock");
    let _network = gvproxy(&lab, &["-stay", "-listen-qemu", &format!("unix://{}", socket.display())]);
    let (one, _first) = fast(&lab, "5a:94:ef:e4:0c:ee", "192.168.127.2/24");
    let (two, _second) = fast(&lab, "5a:94:ef:e4:0c:01", "192.168.127.3/24");
    let slow = lab.container().unwrap();
    let _machine = Machine::attach(&slow, &socket, None);
    let set = slow.sh("ip address add 192.168.127.9/24 dev vm0").unwrap();
    assert!(set.success(), "{set}");
    for (what, to, from, address) in [
        ("fast from fast", &one.container, &two.container, 3),
        ("fast from slow", &one.container, &slow, 9),
        ("slow from fast", &slow, &two.container, 3),
    ] {
        let _server = gives(|script| from.cmd(["sh", "-c", script]), "0.0.0.0", 80, &file);
        let script = format!("ncat --recv-only -w 10 192.168.127.{address} 80 | sha256sum");
        let fetched = to.cmd(["sh", "-c", &script]).run(LIMIT * 3).unwrap();
        assert_eq!(fetched.out(), sum, "{what}: {fetched}");
    }
}
