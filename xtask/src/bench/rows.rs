//! What is measured: tests, each of which gives one figure or several, with the goals that they are held against.

use slipway_lab::Weather;

use super::stage::{Ports, Role, Subject, Variation};

/// What is shown together, in a table and a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// TCP as fast as it goes.
    Throughput,
    /// UDP as fast as it goes.
    Datagrams,
    /// Processor time.
    Processor,
    /// Short exchanges.
    Requests,
    /// Short exchanges beside transfers.
    Latency,
    /// Published ports from the host's loopback, which pasta leads past the device.
    Shortcut,
    /// Ports that come and go under load, by pasta's control socket.
    Rules,
    /// Start and memory.
    Footprint,
    /// What a gvproxy's machines do.
    GvproxyTraffic,
    /// What a gvproxy takes.
    GvproxyFootprint,
    /// What a gvproxy does when somebody does more than he should.
    GvproxyStorms,
    /// A machine of passt's over a stream.
    PasstStream,
    /// One that shares its memory.
    PasstVhostUser,
    /// Both under QEMU.
    PasstEmulated,
    /// A link with loss and no length.
    WeatherNear,
    /// A link with loss and a round-trip time of 100 ms.
    WeatherFar,
    /// The rest of `--weather all`.
    Weather,
}

impl Group {
    /// What its table's marks and its chart's file are called.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Datagrams => "datagrams",
            Self::Processor => "processor",
            Self::Requests => "requests",
            Self::Latency => "latency",
            Self::Shortcut => "shortcut",
            Self::Rules => "rules",
            Self::Footprint => "footprint",
            Self::GvproxyTraffic => "gvproxy-traffic",
            Self::GvproxyFootprint => "gvproxy-footprint",
            Self::GvproxyStorms => "gvproxy-storms",
            Self::PasstStream => "passt-stream",
            Self::PasstVhostUser => "passt-vhost-user",
            Self::PasstEmulated => "passt-emulated",
            Self::WeatherNear => "weather-near",
            Self::WeatherFar => "weather-far",
            Self::Weather => "weather",
        }
    }

    /// The head of its chart.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Throughput => "TCP throughput",
            Self::Datagrams => "Datagrams",
            Self::Processor => "Processor time",
            Self::Requests => "Short exchanges",
            Self::Latency => "Short exchanges beside four streams",
            Self::Shortcut => "From the host's loopback",
            Self::Rules => "Ports that come and go under load",
            Self::Footprint => "Start and memory",
            Self::GvproxyTraffic => "Machines of gvproxy",
            Self::GvproxyFootprint => "What gvproxy takes",
            Self::GvproxyStorms => "gvproxy under storms",
            Self::PasstStream => "Machines of passt, over a stream",
            Self::PasstVhostUser => "Machines of passt that share their memory",
            Self::PasstEmulated => "Machines of passt under QEMU",
            Self::WeatherNear => "A link of 500 Mbit/s, RTT 0",
            Self::WeatherFar => "A link of 500 Mbit/s, RTT 100 ms",
            Self::Weather => "A link of 500 Mbit/s",
        }
    }
}

/// The way that bytes go, seen from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// The work of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many streams at once.
    Tcp(Way, u16),
    Udp(Way),
    Published,
    PublishedUdp,
    Requests(&'static str),
    /// One flow of requests beside four streams: the middle, the 99th percentile, and what the streams carry.
    Latency(Way),
    /// Busy seconds of all cores for a gigabyte.
    Busy(Way),
    /// Datagrams that the sender hands over in trains.
    Train,
    /// Datagrams of 64 bytes.
    Small,
    /// One stream through a published port, from the host's loopback.
    Near,
    /// Connections there, each with one question.
    NearRequests,
    Start,
    /// The same as pasta starts: until the process in the foreground ends.
    Background,
    Idle,
    /// Memory, pages that others share counted in part.
    Proportional,
    /// How often it wakes while nobody does anything.
    Wakes,
    /// So many flows that say little, 100 Mbit/s together.
    Trickle(u32),
    /// A hundred ports that are added and removed.
    Rules,
    Connections(u32),
    /// One stream over a link with weather.
    Weather(Way),
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At least this share of the host itself.
    OfHost(f64),
    /// The same where the host does so much.
    OfHostFrom(f64, f64),
    /// At least this much times the best peer.
    OverBest(f64),
    /// At most what slirp4netns needs.
    LikeSlirp,
    /// At most the best peer.
    LikeBest,
    /// At most this share of what the best peer needs.
    UnderBest(f64),
    /// At least this share of another row of ours.
    OfOurs(f64, &'static str),
    /// At most this much.
    AtMost(f64),
    /// Nothing: it explains another row.
    Shown,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
}

impl Row {
    pub(crate) const fn new(name: &'static str, unit: &'static str, goal: Goal) -> Self {
        Self { name, unit, goal }
    }

    /// Whether less is better: rates end in a second.
    pub(crate) fn less_is_better(&self) -> bool {
        !self.unit.ends_with("/s")
    }
}

/// Work that is done once for all of its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Test {
    pub(crate) work: Work,
    pub(crate) variation: Variation,
    pub(crate) rows: &'static [Row],
}

impl Test {
    /// Whether a subject can do this at all, when ours has this role: a start is compared with that of the program
    /// whose command line it has, and only pasta leads anybody past the device.
    pub(crate) fn does(&self, subject: Subject, role: Role) -> bool {
        let other = if role == Role::Pasta { Subject::Slirp4netns } else { Subject::Pasta };
        match self.work {
            Work::Start => role == Role::Slirp4netns && subject != other && subject != Subject::Host,
            Work::Near | Work::NearRequests => role == Role::Pasta && subject != Subject::Slirp4netns,
            Work::Background | Work::Proportional | Work::Wakes | Work::Trickle(_) => {
                role == Role::Pasta && !matches!(subject, Subject::Slirp4netns | Subject::Host)
            }
            Work::Rules => role == Role::Pasta && matches!(subject, Subject::Slipway | Subject::Before),
            Work::Idle => subject != Subject::Host,
            // slirp4netns does not open them in half a minute.
            Work::Connections(_) => !matches!(subject, Subject::Slirp4netns | Subject::Host),
            Work::Weather(_) => subject != Subject::Slirp4netns,
            _ => true,
        }
    }

    /// Where it is shown.
    pub(crate) fn group(&self) -> Group {
        match self.work {
            Work::Tcp(..) | Work::Published => Group::Throughput,
            Work::Udp(_) | Work::PublishedUdp | Work::Train | Work::Small => Group::Datagrams,
            Work::Busy(_) | Work::Trickle(_) => Group::Processor,
            Work::Requests(_) => Group::Requests,
            Work::Latency(_) => Group::Latency,
            Work::Near | Work::NearRequests => Group::Shortcut,
            Work::Rules => Group::Rules,
            Work::Start
            | Work::Background
            | Work::Idle
            | Work::Proportional
            | Work::Wakes
            | Work::Connections(_) => Group::Footprint,
            Work::Weather(_) => match self.variation.weather {
                Some(Weather { rtt: 0, .. }) if !self.variation.bbr => Group::WeatherNear,
                Some(Weather { rtt: 100, .. }) if !self.variation.bbr => Group::WeatherFar,
                _ => Group::Weather,
            },
        }
    }

    /// Whether one of these is in the name of one of its rows; with none at all, it is.
    pub(crate) fn is_among(&self, wanted: &[String]) -> bool {
        let named = |text: &String| self.rows.iter().any(|row| row.name.contains(text.as_str()));
        wanted.is_empty() || wanted.iter().any(named)
    }
}

pub(crate) const LARGE: Variation =
    Variation { mtu: 65520, bbr: false, tuned: false, weather: None, ports: Ports::One };
const SMALL: Variation = Variation { mtu: 1500, ..LARGE };
const BBR: Variation = Variation { bbr: true, ..LARGE };
const TUNED: Variation = Variation { tuned: true, ..LARGE };
const RULED: Variation = Variation { ports: Ports::Ruled, ..LARGE };
const CLOSED: Variation = Variation { ports: Ports::None, ..LARGE };
const AUTO: Variation = Variation { ports: Ports::Auto, ..LARGE };

const UP: &str = "TCP container to world";
const DOWN: &str = "TCP world to container";

/// All tests, in the order of the table.
pub(crate) const TESTS: &[Test] = &[
    Test {
        work: Work::Tcp(Way::Up, 1),
        variation: LARGE,
        rows: &[Row::new(UP, "Gbit/s", Goal::OfHost(0.45))],
    },
    Test {
        work: Work::Tcp(Way::Down, 1),
        variation: LARGE,
        rows: &[Row::new(DOWN, "Gbit/s", Goal::OverBest(1.25))],
    },
    Test {
        work: Work::Tcp(Way::Up, 1),
        variation: SMALL,
        rows: &[Row::new("TCP container to world, MTU 1500", "Gbit/s", Goal::OfOurs(0.9, UP))],
    },
    Test {
        work: Work::Tcp(Way::Down, 1),
        variation: SMALL,
        rows: &[Row::new("TCP world to container, MTU 1500", "Gbit/s", Goal::OfOurs(0.9, DOWN))],
    },
    Test {
        work: Work::Tcp(Way::Up, 1),
        variation: BBR,
        rows: &[Row::new("TCP container to world, BBR guest", "Gbit/s", Goal::OfHost(0.45))],
    },
    Test {
        work: Work::Tcp(Way::Up, 1),
        variation: TUNED,
        rows: &[Row::new("TCP container to world, tuned tcp_wmem", "Gbit/s", Goal::OfHost(0.45))],
    },
    Test {
        work: Work::Tcp(Way::Up, 4),
        variation: LARGE,
        rows: &[Row::new("TCP container to world, four streams", "Gbit/s", Goal::OfHost(0.45))],
    },
    Test {
        work: Work::Tcp(Way::Down, 4),
        variation: LARGE,
        rows: &[Row::new("TCP world to container, four streams", "Gbit/s", Goal::OverBest(1.25))],
    },
    Test {
        work: Work::Published,
        variation: LARGE,
        rows: &[Row::new("published port through the device", "Gbit/s", Goal::OverBest(1.25))],
    },
    Test {
        work: Work::Udp(Way::Up),
        variation: LARGE,
        rows: &[Row::new("UDP 1400 B up, received", "Gbit/s", Goal::OverBest(1.4))],
    },
    Test {
        work: Work::Udp(Way::Down),
        variation: LARGE,
        rows: &[Row::new("UDP 1400 B down, received", "Gbit/s", Goal::OverBest(2.0))],
    },
    Test {
        work: Work::PublishedUdp,
        variation: LARGE,
        rows: &[Row::new("UDP 1400 B through a published port, received", "Gbit/s", Goal::OverBest(1.4))],
    },
    Test {
        work: Work::Train,
        variation: SMALL,
        rows: &[Row::new("UDP trains of 32 x 1200 B up, MTU 1500, received", "Gbit/s", Goal::OfHost(0.8))],
    },
    Test {
        work: Work::Small,
        variation: LARGE,
        rows: &[Row::new("UDP 64 B up, received", "1/s", Goal::OverBest(1.4))],
    },
    Test {
        work: Work::Busy(Way::Up),
        variation: LARGE,
        rows: &[Row::new("busy seconds of all cores up", "s/GB", Goal::UnderBest(1.0))],
    },
    Test {
        work: Work::Busy(Way::Down),
        variation: LARGE,
        rows: &[Row::new("busy seconds of all cores down", "s/GB", Goal::UnderBest(1.0))],
    },
    Test {
        work: Work::Busy(Way::Up),
        variation: SMALL,
        rows: &[Row::new("busy seconds of all cores up, MTU 1500", "s/GB", Goal::UnderBest(0.6))],
    },
    Test {
        work: Work::Busy(Way::Down),
        variation: SMALL,
        rows: &[Row::new("busy seconds of all cores down, MTU 1500", "s/GB", Goal::UnderBest(0.6))],
    },
    Test {
        work: Work::Trickle(2000),
        variation: LARGE,
        rows: &[Row::new("its own, 2000 flows of 50 kbit/s", "% of a core", Goal::UnderBest(0.5))],
    },
    Test {
        work: Work::Requests("rr"),
        variation: LARGE,
        rows: &[Row::new("TCP request/response", "1/s", Goal::OverBest(1.15))],
    },
    Test {
        work: Work::Requests("crr"),
        variation: LARGE,
        rows: &[Row::new("TCP connect+request+close", "1/s", Goal::OverBest(1.5))],
    },
    Test {
        work: Work::Requests("udp-rr"),
        variation: LARGE,
        rows: &[Row::new("UDP request/response", "1/s", Goal::OverBest(1.15))],
    },
    Test {
        work: Work::Latency(Way::Up),
        variation: LARGE,
        rows: &[
            Row::new("latency beside four uploads, median", "ms", Goal::AtMost(0.5)),
            Row::new("latency beside four uploads, 99th percentile", "ms", Goal::AtMost(1.5)),
            Row::new("those uploads", "Gbit/s", Goal::Shown),
        ],
    },
    Test {
        work: Work::Latency(Way::Down),
        variation: LARGE,
        rows: &[
            Row::new("latency beside four downloads, median", "ms", Goal::AtMost(0.5)),
            Row::new("latency beside four downloads, 99th percentile", "ms", Goal::AtMost(1.5)),
            Row::new("those downloads", "Gbit/s", Goal::Shown),
        ],
    },
    Test {
        work: Work::Latency(Way::Up),
        variation: SMALL,
        rows: &[
            Row::new("latency beside four uploads, MTU 1500, median", "ms", Goal::AtMost(0.3)),
            Row::new("latency beside four uploads, MTU 1500, 99th percentile", "ms", Goal::AtMost(1.0)),
            Row::new("those uploads, MTU 1500", "Gbit/s", Goal::Shown),
        ],
    },
    Test {
        work: Work::Latency(Way::Down),
        variation: SMALL,
        rows: &[
            Row::new("latency beside four downloads, MTU 1500, median", "ms", Goal::AtMost(0.3)),
            Row::new("latency beside four downloads, MTU 1500, 99th percentile", "ms", Goal::AtMost(1.0)),
            Row::new("those downloads, MTU 1500", "Gbit/s", Goal::Shown),
        ],
    },
    Test {
        work: Work::Near,
        variation: LARGE,
        rows: &[Row::new("published port from the host's loopback", "Gbit/s", Goal::OverBest(1.1))],
    },
    Test {
        work: Work::NearRequests,
        variation: LARGE,
        rows: &[Row::new("connect+request+close from the host's loopback", "1/s", Goal::OverBest(1.5))],
    },
    Test {
        work: Work::Rules,
        variation: RULED,
        rows: &[
            Row::new("a rule added or removed, median", "ms", Goal::AtMost(1.0)),
            Row::new("a rule added or removed, 99th percentile", "ms", Goal::AtMost(5.0)),
            Row::new("uploads meanwhile", "Gbit/s", Goal::Shown),
            Row::new("connections to an unchanged port meanwhile", "1/s", Goal::Shown),
        ],
    },
    Test {
        work: Work::Background,
        variation: LARGE,
        rows: &[Row::new("start with --config-net", "ms", Goal::UnderBest(0.5))],
    },
    Test { work: Work::Start, variation: LARGE, rows: &[Row::new("start to ready", "ms", Goal::LikeSlirp)] },
    Test {
        work: Work::Idle,
        variation: LARGE,
        rows: &[Row::new("resident memory idle", "MB", Goal::LikeBest)],
    },
    Test {
        work: Work::Proportional,
        variation: CLOSED,
        rows: &[Row::new("proportional memory idle", "MB", Goal::AtMost(4.0))],
    },
    Test {
        work: Work::Wakes,
        variation: CLOSED,
        rows: &[Row::new("wake-ups a second, idle", "in 1 s", Goal::AtMost(0.0))],
    },
    Test {
        work: Work::Wakes,
        variation: AUTO,
        rows: &[Row::new("wake-ups a second, idle, ports by auto", "in 1 s", Goal::AtMost(1.0))],
    },
    Test {
        work: Work::Connections(8000),
        variation: LARGE,
        rows: &[Row::new("8000 open connections, each", "KiB", Goal::AtMost(1.0))],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_a_part_of_their_names() {
        let count = |words: &[&str]| {
            let wanted: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            TESTS.iter().filter(|test| test.is_among(&wanted)).count()
        };
        assert_eq!(count(&[]), TESTS.len());
        assert_eq!(count(&["latency"]), 4);
        assert_eq!(count(&["latency", "four streams"]), 6);
        assert_eq!(count(&["no such row"]), 0);
    }

    #[test]
    fn names_are_told_apart_and_goals_name_rows_that_are() {
        let mut names: Vec<&str> = TESTS.iter().flat_map(|test| test.rows).map(|row| row.name).collect();
        for row in TESTS.iter().flat_map(|test| test.rows) {
            if let Goal::OfOurs(_, other) = row.goal {
                assert!(names.contains(&other), "{}", row.name);
            }
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_is_shown_together_stands_together() {
        let mut groups: Vec<&str> = TESTS.iter().map(|test| test.group().mark()).collect();
        groups.dedup();
        let expected =
            ["throughput", "datagrams", "processor", "requests", "latency", "shortcut", "rules", "footprint"];
        assert_eq!(groups, expected);
    }
}
