//! Whose turn it is to send to the guest: flows that are new or send little go before those that send much.
//!
//! This is the fair part of fq_codel (RFC 8290 §4) without its queues, since what waits to be sent stays in host
//! sockets. Two lists hold the flows that have something to flush:
//!
//! - *sparse*: flows that have sent less than [`SPARSE`] bytes in this round: new ones, questions and answers,
//!   acknowledgements of an upload. They go first.
//! - *bulk*: all others, one behind the other. One turn is [`QUANTUM`] bytes, or two frames.
//!
//! A **round** is over when a flow comes up in *bulk* that has been served in it already: then everybody who waited has
//! had a turn, and every flow may again send a little ahead of the others. So a sparse flow waits for the one turn that
//! is under way and for other sparse flows, never for the number of downloads; and nobody starves, since what a flow
//! sends ahead is bounded in each round. A bulk flow that is held up by the guest's window comes and goes in the lists
//! with each acknowledgement, and may send nothing in many a turn: what counts is halved with each of its turns, so it
//! stays bulk until it has sent little in several, or has been away for [`FORGET`] rounds.
//!
//! A flow whose station alone has no room, on a device with several links, is *held*: it is in no list until there is
//! some, and nobody else waits for it.
//!
//! Bytes are what is shared, not frames: a frame of a download holds as many as a thousand questions. Each frame costs
//! [`FRAME_COST`] on top, for the system call, and each look at a flow [`LOOK_COST`].

use crate::addr::MacAddr;
use crate::flow::FlowId;
use std::collections::VecDeque;

/// What one [`crate::Engine::drain`] may send: two super-frames, which is how long a frame of the guest or an event of
/// a socket waits at the most until it is looked at. More would save a look at the link and at epoll for each, and
/// costs whoever waits in proportion.
pub(crate) const DRAIN: usize = 128 << 10;
/// What a bulk flow may send in one turn. Two frames for one flow wake its reader once; one frame for each of two flows
/// wakes two, and on a virtual machine a wake costs as much as copying thirty kilobytes.
const QUANTUM: usize = DRAIN;
/// A flow that sends less than this in a round is sparse; its turn ends with the frame that goes beyond.
const SPARSE: usize = 4 << 10;
/// Rounds after which a flow that sent much is forgotten to have done so.
const FORGET: u32 = 4096;
/// What a frame costs beside its bytes, in bytes that could be copied meanwhile.
pub(crate) const FRAME_COST: usize = 512;
/// What it costs to look at a flow, even if it has nothing to send.
pub(crate) const LOOK_COST: usize = 128;

/// What the schedule knows of a flow; lies in the flow's entry.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    queued: bool,
    held: bool,
    /// The round that it was last served in; what it has sent in it, and, less with each turn, before.
    round: u32,
    sent: u32,
}

/// Which list a flow came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    Sparse,
    Bulk,
}

/// The flows that have something to flush.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    sparse: VecDeque<FlowId>,
    bulk: VecDeque<FlowId>,
    /// Flows that wait for room, by their station.
    held: Vec<(MacAddr, Vec<FlowId>)>,
    round: u32,
}

impl List {
    /// What a flow of this list may send in one turn.
    pub(crate) const fn quantum(self) -> usize {
        match self {
            Self::Sparse => SPARSE,
            Self::Bulk => QUANTUM,
        }
    }
}

impl Schedule {
    /// Nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.sparse.is_empty() && self.bulk.is_empty()
    }

    /// The flow has something to flush.
    pub(crate) fn enqueue(&mut self, id: FlowId, share: &mut Share) {
        if share.queued || share.held {
            return;
        }
        share.queued = true;
        let away = self.round.wrapping_sub(share.round);
        if away < FORGET && share.sent as usize >= SPARSE {
            self.bulk.push_back(id);
            return;
        }
        if away > 0 {
            share.round = self.round;
            share.sent = 0;
        }
        self.sparse.push_back(id);
    }

    /// Who is next, and from which list; to be told to [`Schedule::begin`], unless the flow has ended.
    pub(crate) fn next(&mut self) -> Option<(FlowId, List)> {
        match self.sparse.pop_front() {
            Some(id) => Some((id, List::Sparse)),
            None => self.bulk.pop_front().map(|id| (id, List::Bulk)),
        }
    }

    /// The flow's turn begins.
    pub(crate) const fn begin(&mut self, share: &mut Share, list: List) {
        share.queued = false;
        if matches!(list, List::Bulk) {
            if share.round == self.round {
                self.round = self.round.wrapping_add(1);
            }
            share.round = self.round;
            share.sent /= 2;
        }
    }

    /// The flow's turn is over: it has sent so much, and has `more`.
    pub(crate) fn served(&mut self, id: FlowId, share: &mut Share, cost: usize, more: bool) {
        share.sent = share.sent.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        if more && !share.queued {
            share.queued = true;
            self.bulk.push_back(id);
        }
    }

    /// The link was full before the flow's turn was over: it is the first again when there is room.
    pub(crate) fn put_back(&mut self, id: FlowId, share: &mut Share, list: List) {
        if share.queued {
            return;
        }
        share.queued = true;
        match list {
            List::Sparse => self.sparse.push_front(id),
            List::Bulk => self.bulk.push_front(id),
        }
    }

    /// The flow waits until there is room for its station.
    pub(crate) fn hold(&mut self, id: FlowId, share: &mut Share, station: MacAddr) {
        share.held = true;
        match self.held.iter_mut().find(|(of, _)| *of == station) {
            Some((_, flows)) => flows.push(id),
            None => self.held.push((station, vec![id])),
        }
    }

    /// Whether flows wait for room for their station.
    pub(crate) const fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The flows that waited for stations that there may be room for; to be told to [`Schedule::resume`], unless they
    /// have ended.
    pub(crate) fn release(&mut self, may: impl Fn(MacAddr) -> bool) -> Vec<FlowId> {
        self.held.extract_if(.., |(station, _)| may(*station)).flat_map(|(_, flows)| flows).collect()
    }

    /// There may be room for the flow's station.
    pub(crate) fn resume(&mut self, id: FlowId, share: &mut Share) {
        share.held = false;
        self.enqueue(id, share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flows that want to send so much each time they are enqueued.
    struct Stage {
        schedule: Schedule,
        shares: Vec<Share>,
    }

    impl Stage {
        fn new(flows: usize) -> Self {
            Self { schedule: Schedule::default(), shares: vec![Share::default(); flows] }
        }

        fn enqueue(&mut self, flow: usize) {
            self.schedule.enqueue(FlowId::new(u32::try_from(flow).unwrap(), 0), &mut self.shares[flow]);
        }

        /// One turn: who had it.
        fn turn(&mut self, cost: usize, more: bool) -> Option<usize> {
            let (id, list) = self.schedule.next()?;
            let share = &mut self.shares[id.index()];
            self.schedule.begin(share, list);
            self.schedule.served(id, share, cost, more);
            Some(id.index())
        }
    }

    #[test]
    fn bulk_flows_take_turns() {
        let mut stage = Stage::new(3);
        (0..3).for_each(|flow| stage.enqueue(flow));
        let turns: Vec<_> = (0..9).map(|_| stage.turn(QUANTUM, true).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn who_sends_little_goes_first_whether_the_others_wait_for_the_guest_or_not() {
        for held_up in [false, true] {
            let mut stage = Stage::new(9);
            (0..8).for_each(|flow| stage.enqueue(flow));
            for _ in 0..100 {
                // Held up by the window, a flow leaves the list and comes back with an acknowledgement.
                let flow = stage.turn(QUANTUM, !held_up).unwrap();
                stage.enqueue(flow);
                if stage.schedule.round > 2 {
                    stage.enqueue(8);
                    assert_eq!(stage.turn(100, false), Some(8));
                }
            }
            assert!(stage.schedule.round > 2);
        }
    }

    #[test]
    fn what_is_sent_ahead_is_bounded_in_each_round() {
        let mut stage = Stage::new(101);
        stage.enqueue(0);
        stage.turn(QUANTUM, true);
        let mut bulk = 0;
        for _ in 0..10_000 {
            (1..101).for_each(|flow| stage.enqueue(flow));
            bulk += usize::from(stage.turn(1000, false).unwrap() == 0) * usize::from(!stage.shares[0].queued);
            stage.enqueue(0);
        }
        // A hundred flows that never cease: each has five small turns in a round, then the download has one.
        assert!(bulk >= 10, "{bulk}");
    }

    #[test]
    fn after_a_rest_a_download_is_new_again() {
        let mut stage = Stage::new(2);
        stage.enqueue(0);
        stage.enqueue(1);
        assert_eq!(stage.turn(QUANTUM, false), Some(0));
        for _ in 0..=FORGET {
            stage.turn(QUANTUM, true);
        }
        stage.enqueue(0);
        assert_eq!(stage.turn(100, false), Some(0));
        stage.enqueue(0);
        assert_eq!(stage.turn(QUANTUM, false), Some(0), "it has sent little so far");
        stage.enqueue(0);
        assert_eq!(stage.turn(100, true), Some(1));
    }

    #[test]
    fn whose_station_has_no_room_waits_alone() {
        let mut stage = Stage::new(3);
        let stations = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
        for flow in [0, 1] {
            stage.enqueue(flow);
            let (id, list) = stage.schedule.next().unwrap();
            stage.schedule.begin(&mut stage.shares[flow], list);
            stage.schedule.hold(id, &mut stage.shares[flow], stations[flow]);
        }
        stage.enqueue(2);
        assert_eq!((stage.turn(100, false), stage.turn(100, false)), (Some(2), None));
        // Whatever happens to it meanwhile: without room it has nothing to do.
        stage.enqueue(0);
        assert_eq!(stage.turn(100, false), None);
        let released = stage.schedule.release(|station| station == stations[0]);
        assert_eq!(released, [FlowId::new(0, 0)]);
        stage.schedule.resume(released[0], &mut stage.shares[0]);
        assert_eq!((stage.turn(100, false), stage.turn(100, false)), (Some(0), None));
        assert!(stage.schedule.is_holding());
        assert_eq!(stage.schedule.release(|_| true), [FlowId::new(1, 0)]);
        assert!(!stage.schedule.is_holding());
    }

    #[test]
    fn who_met_a_full_link_is_first_again() {
        let mut stage = Stage::new(2);
        stage.enqueue(0);
        stage.enqueue(1);
        let (id, list) = stage.schedule.next().unwrap();
        stage.schedule.begin(&mut stage.shares[0], list);
        stage.schedule.put_back(id, &mut stage.shares[0], list);
        stage.enqueue(0);
        assert_eq!(stage.turn(100, false), Some(0));
        assert_eq!(stage.turn(100, false), Some(1));
        assert_eq!(stage.turn(100, false), None);
        assert!(stage.schedule.is_empty());
    }
}
