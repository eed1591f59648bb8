//! End to end: the kernel's own TCP as the guest, real programs on both sides, nothing outside the lab.
//!
//! `traffic`, `tcp`, `tunnels`, `upload`, `memory`, `names`, `upstreams`, `transfers` and `publish` drive the
//! slirp4netns role directly, so the original can stand in for ours to prove the tests; `ending` is how it ends,
//! `surroundings` what may be amiss around it; `weather` is the lab's own link; `zones` puts both on single links;
//! `engines` lets Podman and RootlessKit start it; `podman` and `bridges` let Podman start the netavark and
//! aardvark-dns roles; `gvproxy` gives virtual machines (`machine`) a network, and `hypervisors` such that are real;
//! `ssh` leads into them by their own servers; `pesto` puts ours and the original's before one another; `passt` and
//! `vhost_user` boot kernels of their own; `run` and `attach` are our own commands; `pages` has the programs write
//! their man pages.

mod apparmor;
mod attach;
mod bridges;
mod ending;
mod engines;
mod fast_link;
mod filter;
mod gvforwarder;
mod gvproxy;
mod hostile;
mod hypervisors;
mod image;
mod limits;
mod machine;
mod memory;
mod names;
mod pages;
mod passt;
mod pasta;
mod path;
mod pesto;
mod plugin;
mod podman;
mod ports;
mod publish;
mod rootless;
mod rootlesskit;
mod run;
mod ssh;
mod surroundings;
mod tcp;
mod traffic;
mod transfers;
mod tunnels;
mod uplink;
mod upload;
mod upstreams;
mod vhost_user;
mod weather;
mod zones;

use slipway_lab::{Container, LIMIT, Lab, Output, Running};

/// Waits until the container has its IPv6 address and route; gives the address.
fn ipv6(container: &Container) -> String {
    let script = "for i in $(seq 200); do
        if ip -6 route show default | grep -q via && ip -6 -o address show scope global -tentative | grep -q inet6
        then break; fi; sleep 0.05; done; ip -6 -o address show scope global";
    let shown = container.sh(script).unwrap().out();
    let address = shown.split_whitespace().find_map(|word| word.strip_suffix("/64"));
    address.unwrap_or_else(|| panic!("no IPv6 address: {shown}")).to_owned()
}

/// A file of pseudo-random bytes that everybody may read, and its digest.
fn payload(lab: &Lab, mebibytes: usize) -> (String, String) {
    let path = lab.dir().join("payload");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(mebibytes << 20);
    while bytes.len() < mebibytes << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_string_lossy().into_owned();
    let digest = digest(&lab.world(["sha256sum", &path]).ok(LIMIT).unwrap());
    (path, digest)
}

fn digest(output: &Output) -> String {
    output.out().split_whitespace().next().unwrap_or_default().to_owned()
}

/// A receiver that prints the digest of what one connection brought.
fn receiver(place: slipway_lab::Cmd, port: u16) -> Running {
    let script = format!("exec 3<&0; ncat -l {port} --recv-only | sha256sum");
    Running::server(place.arg(script), "tcp", port).unwrap()
}
