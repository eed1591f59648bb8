//! Internal networks' own table, without a kernel.

use super::plans::Table;
use crate::firewall::nft::internal;

#[test]
fn internal_bridges_are_closed_and_the_table_goes_with_the_last() {
    let mut table = Table::default();
    let change = |table: &mut Table, bridge: &'static str, closed: bool| {
        table.change(&internal::to_look_at(), |plan| {
            if closed {
                internal::add(plan, bridge);
            } else {
                internal::remove(plan, bridge);
            }
            Ok(())
        })
    };
    let rules = |bridge: &str| {
        [
            format!("iifname \"{bridge}\" oifname != \"{bridge}\" drop"),
            format!("iifname != \"{bridge}\" oifname \"{bridge}\" drop"),
        ]
    };
    assert_eq!(change(&mut table, "podman0", false), "", "there is no such table");
    let first = change(&mut table, "podman0", true);
    assert!(
        first.starts_with("add table\nadd chain INTERNAL { type filter hook forward priority 0;"),
        "{first}"
    );
    assert_eq!(change(&mut table, "podman0", true), "");
    change(&mut table, "podman1", true);
    assert_eq!(table.text("INTERNAL"), [rules("podman0"), rules("podman1")].concat());
    change(&mut table, "podman0", false);
    assert_eq!(table.text("INTERNAL"), rules("podman1"));
    let last = change(&mut table, "podman1", false);
    assert!(last.ends_with("delete table\n"), "{last}");
    assert!(table.chains.is_empty());
}
