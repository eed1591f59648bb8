//! `auto`: ports that are open because somebody listens on them across the border.
//!
//! Once a second somebody looks which ports either side listens on ([`slipway_host::netlink::Diag`]); from that follows
//! which ports the rules that scan have open ([`crate::Table::follow`]). Nobody is told of a listener that opens, so a
//! look is the only way, and a port that opens and closes within the second leaves nothing.
//!
//! **No loops.** What we have opened ourselves on a side is no service there: otherwise a port that leads from the host
//! to the guest would be one more service of the host's, be opened in the guest, and lead back. So ports that we listen
//! on are taken out, whatever address they are on.
//!
//! **UDP follows TCP.** A port that is listened on over TCP is opened over UDP as well, for programs that open their
//! UDP socket only when they are spoken to over TCP (iperf3).

use crate::rule::Proto;
use slipway_host::netlink::Listening;
use slipway_host::port_set::PortSet;

/// The ports that are open to rules of `proto` that lead to the other side: somebody `across` listens there, and it is
/// not `ours`, what we listen on there ourselves.
#[must_use]
pub fn open_ports(proto: Proto, across: &Listening, ours: &Listening) -> PortSet {
    let mut open = across.tcp.clone();
    open.remove_all(&ours.tcp);
    if proto == Proto::Udp {
        let mut udp = across.udp.clone();
        udp.remove_all(&ours.udp);
        open.insert_all(&udp);
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(tcp: &[u16], udp: &[u16]) -> Listening {
        Listening { tcp: tcp.iter().copied().collect(), udp: udp.iter().copied().collect() }
    }

    fn open(proto: Proto, across: &Listening, ours: &Listening) -> Vec<u16> {
        open_ports(proto, across, ours).iter().collect()
    }

    #[test]
    fn a_port_is_open_while_somebody_listens_across() {
        let across = listening(&[22, 80], &[53]);
        let nothing = Listening::default();
        assert_eq!(open(Proto::Tcp, &across, &nothing), [22, 80]);
        assert_eq!(open(Proto::Udp, &across, &nothing), [22, 53, 80], "UDP follows TCP");
        assert_eq!(open(Proto::Tcp, &nothing, &nothing), [0; 0]);
    }

    #[test]
    fn what_we_opened_ourselves_is_no_service() {
        let across = listening(&[80, 8080], &[53, 80, 5353]);
        assert_eq!(open(Proto::Tcp, &across, &listening(&[80], &[])), [8080]);
        // Over UDP, too, what is ours over TCP is nobody's service.
        let ours = listening(&[80, 8080], &[80]);
        assert_eq!(open(Proto::Udp, &across, &ours), [53, 5353]);
        // But one of ours over UDP says nothing about TCP.
        assert_eq!(open(Proto::Tcp, &across, &listening(&[], &[80, 8080])), [80, 8080]);
    }

    #[test]
    fn two_sides_that_follow_each_other_come_to_rest() {
        // The guest listens on 80, the host on 22; each look opens on one side what the other one has.
        let mut ours = [Listening::default(), Listening::default()];
        let theirs = [listening(&[22], &[]), listening(&[80], &[])];
        for round in 0..3 {
            let seen: Vec<Listening> = (0..2)
                .map(|side| {
                    let mut all = theirs[side].clone();
                    all.tcp.insert_all(&ours[side].tcp);
                    all
                })
                .collect();
            let next =
                [open_ports(Proto::Tcp, &seen[1], &ours[1]), open_ports(Proto::Tcp, &seen[0], &ours[0])];
            for (ours, tcp) in ours.iter_mut().zip(next) {
                ours.tcp = tcp;
            }
            let ports: Vec<Vec<u16>> = ours.iter().map(|ours| ours.tcp.iter().collect()).collect();
            assert_eq!(ports, [vec![80], vec![22]], "round {round}");
        }
    }
}
