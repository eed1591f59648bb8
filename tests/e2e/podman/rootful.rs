//! Podman as root with bridge networks that world can reach.

use super::scenes::names_world_and_ports;
use super::{Pair, Podman, User, Version, Wish};

#[test]
fn root_names_and_ports_with_both() {
    let wish = Wish { user: User::Root, ..Wish::new(Pair::OURS) };
    let Some(podman) = Podman::new("root_names_and_ports_with_both", &wish) else { return };
    names_world_and_ports(&podman);
}

#[test]
fn root_podman_5() {
    let wish = Wish { version: Version::Five, user: User::Root, ..Wish::new(Pair::OURS) };
    let Some(podman) = Podman::new("root_podman_5", &wish) else { return };
    names_world_and_ports(&podman);
}

#[test]
fn root_podman_6() {
    let wish = Wish { version: Version::Six, user: User::Root, ..Wish::new(Pair::OURS) };
    let Some(podman) = Podman::new("root_podman_6", &wish) else { return };
    names_world_and_ports(&podman);
}
