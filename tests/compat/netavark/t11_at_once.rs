//! Several calls at once. Engines take turns; whoever does not gets the same result.

use crate::host;
use crate::request::{Join, publish, request};

const CONTAINERS: u16 = 8;

#[test]
fn containers_that_come_and_go_at_once_leave_nothing() {
    let host = host!(ours "containers_that_come_and_go_at_once_leave_nothing");
    let calls: Vec<_> = (0..CONTAINERS)
        .map(|number| {
            let address = format!("10.88.0.{}", number + 2);
            let join = Join::bridge("podman", "podman0", &["10.88.0.1/16"]).addresses(&[&address]);
            let request = request(&format!("c{number}"), &[join]);
            (host.container(), publish(request, &[("", 8000 + number, 80, "tcp", 1)]))
        })
        .collect();
    let host = &host;
    std::thread::scope(|scope| {
        for (container, request) in &calls {
            scope.spawn(move || host.setup(container, request));
        }
    });
    assert_eq!(host.chain("NETAVARK-HOSTPORT-DNAT").len(), usize::from(CONTAINERS));
    std::thread::scope(|scope| {
        for (container, request) in &calls {
            scope.spawn(move || host.teardown(container, request));
        }
    });
    host.is_clean();
}
