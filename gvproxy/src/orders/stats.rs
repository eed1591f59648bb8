//! Counters under the names that gVisor's stack has for them, in groups as it has them. What is counted here under
//! none of these names is in no group; what that stack counts and this one does not is 0.

use serde::{Deserialize, Serialize};
use slipway_netstack::counters::Counters;

/// Declares a group: a structure of numbers whose names are the keys.
macro_rules! group {
    ($(#[$about:meta])* $group:ident { $($name:ident: $key:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        #[expect(missing_docs, reason = "gVisor's documentation of tcpip.Stats says what each counts")]
        pub struct $group { $(#[serde(rename = $key)] pub $name: u64),* }
    };
}

/// All of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Toward guests, in frames.
    #[serde(rename = "BytesSent")]
    pub bytes_sent: u64,
    /// From guests, in frames.
    #[serde(rename = "BytesReceived")]
    pub bytes_received: u64,
    /// Packets that went no further, whatever the reason.
    #[serde(rename = "DroppedPackets")]
    pub dropped: u64,
    /// The gateway's link.
    #[serde(rename = "NICs")]
    pub nics: Nics,
    /// Messages about errors, and echo.
    #[serde(rename = "ICMP")]
    pub icmp: Icmp,
    /// Groups of hosts.
    #[serde(rename = "IGMP")]
    pub igmp: Igmp,
    /// Packets.
    #[serde(rename = "IP")]
    pub ip: Ip,
    /// Whose address is whose.
    #[serde(rename = "ARP")]
    pub arp: Arp,
    /// Connections.
    #[serde(rename = "TCP")]
    pub tcp: Tcp,
    /// Datagrams.
    #[serde(rename = "UDP")]
    pub udp: Udp,
}

/// Frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Way {
    /// How many.
    pub packets: u64,
    /// How long together.
    pub bytes: u64,
}

/// The gateway's link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Nics {
    /// Of network protocols that nobody speaks.
    #[serde(rename = "UnknownL3ProtocolRcvdPackets")]
    pub unknown_l3: u64,
    /// Of transport protocols that nobody speaks.
    #[serde(rename = "UnknownL4ProtocolRcvdPackets")]
    pub unknown_l4: u64,
    /// Transport headers that are none.
    #[serde(rename = "MalformedL4RcvdPackets")]
    pub malformed_l4: u64,
    /// Toward guests.
    pub tx: Way,
    /// From guests.
    pub rx: Way,
}

group! {
    /// Messages about errors, and echo.
    Icmp { echoes: "EchoRequest", unreachable: "DstUnreachable", dropped: "Dropped" }
}

group! {
    /// Groups of hosts, which nobody joins here.
    Igmp { sent: "PacketsSent", received: "PacketsReceived" }
}

group! {
    /// Packets.
    Ip {
        received: "PacketsReceived",
        valid: "ValidPacketsReceived",
        disabled: "DisabledPacketsReceived",
        wrong_destination: "InvalidDestinationAddressesReceived",
        wrong_source: "InvalidSourceAddressesReceived",
        delivered: "PacketsDelivered",
        sent: "PacketsSent",
        send_errors: "OutgoingPacketErrors",
        malformed: "MalformedPacketsReceived",
        malformed_fragments: "MalformedFragmentsReceived",
    }
}

group! {
    /// Whose address is whose.
    Arp {
        received: "PacketsReceived",
        malformed: "MalformedPacketsReceived",
        requests: "RequestsReceived",
        replies: "RepliesReceived",
        requests_sent: "OutgoingRequestsSent",
        replies_sent: "OutgoingRepliesSent",
    }
}

group! {
    /// Connections.
    Tcp {
        opened: "ActiveConnectionOpenings",
        accepted: "PassiveConnectionOpenings",
        established: "CurrentEstablished",
        connected: "CurrentConnected",
        resets: "EstablishedResets",
        closed: "EstablishedClosed",
        timed_out: "EstablishedTimedout",
        overflow: "ListenOverflowSynDrop",
        overflow_acks: "ListenOverflowAckDrop",
        cookies_sent: "ListenOverflowSynCookieSent",
        cookies_received: "ListenOverflowSynCookieRcvd",
        cookies_wrong: "ListenOverflowInvalidSynCookieRcvd",
        failed: "FailedConnectionAttempts",
        valid: "ValidSegmentsReceived",
        invalid: "InvalidSegmentsReceived",
        sent: "SegmentsSent",
        send_errors: "SegmentSendErrors",
        resets_sent: "ResetsSent",
        resets_received: "ResetsReceived",
        retransmits: "Retransmits",
        fast_recovery: "FastRecovery",
        sack_recovery: "SACKRecovery",
        tail_recovery: "TLPRecovery",
        slow_start_retransmits: "SlowStartRetransmits",
        fast_retransmits: "FastRetransmit",
        timeouts: "Timeouts",
        checksums: "ChecksumErrors",
        in_flight: "ForwardMaxInFlightDrop",
    }
}

group! {
    /// Datagrams.
    Udp {
        received: "PacketsReceived",
        unknown_port: "UnknownPortErrors",
        buffer_errors: "ReceiveBufferErrors",
        malformed: "MalformedPacketsReceived",
        sent: "PacketsSent",
        send_errors: "PacketSendErrors",
        checksums: "ChecksumErrors",
    }
}

impl From<&Counters> for Stats {
    fn from(counters: &Counters) -> Self {
        let (rx, tx) = (
            Way { packets: counters.frames_in, bytes: counters.bytes_in },
            Way { packets: counters.frames_out, bytes: counters.bytes_out },
        );
        Self {
            bytes_sent: counters.bytes_out,
            bytes_received: counters.bytes_in,
            dropped: counters.dropped_total(),
            nics: Nics { tx, rx, ..Nics::default() },
            icmp: Icmp { echoes: counters.echo_flows, unreachable: counters.icmp_errors_out, dropped: 0 },
            ip: Ip { received: rx.packets, sent: tx.packets, ..Ip::default() },
            tcp: Tcp {
                // gVisor's side of a guest's connection is the passive one.
                opened: counters.tcp_accepted,
                accepted: counters.tcp_opened,
                failed: counters.tcp_refused,
                resets: counters.tcp_reset,
                closed: counters.tcp_closed,
                retransmits: counters.tcp_retransmits,
                fast_retransmits: counters.tcp_fast_retransmits,
                timeouts: counters.tcp_timeouts,
                ..Tcp::default()
            },
            udp: Udp { received: counters.udp_in, sent: counters.udp_out, ..Udp::default() },
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_has_gvisors_name() {
        let mut counters = Counters::default();
        counters.bytes_out = 1;
        counters.bytes_in = 2;
        counters.tcp_opened = 3;
        counters.tcp_accepted = 4;
        counters.tcp_retransmits = 5;
        counters.udp_in = 6;
        let stats = Stats::from(&counters);
        let json = serde_json::to_value(stats).unwrap();
        let number = |path: &str| json.pointer(path).unwrap().as_u64().unwrap();
        for (path, value) in [
            ("/BytesSent", 1),
            ("/BytesReceived", 2),
            ("/TCP/PassiveConnectionOpenings", 3),
            ("/TCP/ActiveConnectionOpenings", 4),
            ("/TCP/Retransmits", 5),
            ("/UDP/PacketsReceived", 6),
            ("/NICs/Rx/Bytes", 2),
            ("/TCP/ForwardMaxInFlightDrop", 0),
            ("/ARP/PacketsReceived", 0),
        ] {
            assert_eq!(number(path), value, "{path}");
        }
        assert_eq!(serde_json::from_value::<Stats>(json).unwrap(), stats);
    }
}
