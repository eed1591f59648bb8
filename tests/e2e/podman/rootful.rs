//! Podman as root with bridge networks that world can reach.

use super::scenes::names_world_and_ports;
use super::{Pair, Podman, User, Wish};

#[test]
fn root_names_and_ports_with_both() {
    let wish = Wish { user: User::Root, ..Wish::new(Pair::OURS) };
    let Some(podman) = Podman::new("root_names_and_ports_with_both", &wish) else { return };
    names_world_and_ports(&podman);
}
