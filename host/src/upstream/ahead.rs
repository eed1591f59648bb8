//! Reading ahead, on kernels that cannot peek from an offset.
//!
//! Before Linux 6.9 a peek begins at the front of the receive queue, so whatever the guest has not acknowledged yet is
//! copied again for each frame behind it: a mebibyte in frames of 64 KiB costs eight and a half. What lies in the queue
//! does not change until it is taken, though, so one peek may bring the bytes of several frames: as many as had to be
//! skipped, and what was asked for. Then what is copied grows with what is carried, and not with its square, until more
//! than [`MOST`] is under way.
//!
//! Invariants. What is kept is what the queue holds from `start` on, counted from its front: taking bytes moves it, and
//! nothing else does. Nothing is kept for a peek at the front, which is all that short exchanges do. At most [`FLOWS`]
//! flows read ahead at once, [`MOST`] bytes each; a flow that finds no place peeks without, and a place that its flow
//! has not looked at while others were refused [`REST`] times is given away.

use nix::errno::Errno as Code;
use slipway_netstack::FlowId;
use slipway_netstack::surely::Surely;

/// Flows that read ahead at once.
const FLOWS: usize = 4;
/// The most bytes of one flow.
const MOST: usize = 1 << 20;
/// How often others are refused a place before one that is not looked at is given away.
const REST: u32 = 64;
/// Room for bytes that are skipped: with 1023 parts in a system call, offsets up to 64 MiB.
const SCRATCH: usize = 64 * 1024;

/// What a peek has found, in bytes from the offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Those that were given out.
    pub(super) shown: usize,
    /// Those that the queue holds, if it was seen to its end.
    pub(super) end: Option<usize>,
}

/// What was read ahead, of all flows.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    places: [Place; FLOWS],
    /// Where bytes go that are peeked only to get behind them, or read only to be rid of them; empty as long as no
    /// socket has to.
    scratch: Vec<u8>,
    /// How often a place was refused since one was last given away.
    refused: u32,
}

#[derive(Debug, Default)]
struct Place {
    tenant: Option<FlowId>,
    bytes: Vec<u8>,
    /// The part of `bytes` that is known, and how far into it the flow has come.
    from: usize,
    to: usize,
    used: usize,
    /// Where the known part begins, from the front of the queue.
    start: usize,
    /// Its flow has not looked at it since a place was last given away.
    idle: bool,
}

impl Ahead {
    /// Peeks at the queue of `flow` from `offset` on. `peek` copies what lies before `offset` into its first argument,
    /// again and again over itself, and what lies behind into the second, and says how many bytes that were together.
    /// `dry_at` is where the queue is known to end.
    ///
    /// # Errors
    /// Those of `peek`; EAGAIN when there is nothing behind `offset`.
    pub(super) fn peek(
        &mut self,
        flow: FlowId,
        offset: usize,
        into: &mut [u8],
        dry_at: Option<usize>,
        mut peek: impl FnMut(&mut [u8], &mut [u8]) -> Result<usize, Code>,
    ) -> Result<Seen, Code> {
        if let Some(shown) = self.show(flow, offset, into, dry_at) {
            return Ok(Seen { shown, end: None });
        }
        if offset > 0 && self.scratch.is_empty() {
            self.scratch.resize(SCRATCH, 0);
        }
        let asked = (offset + into.len()).min(MOST);
        let place = if asked > into.len() { self.place(flow) } else { None };
        let Some(place) = place.and_then(|at| self.places.get_mut(at)) else {
            let len = behind(peek(&mut self.scratch, into)?, offset)?;
            return Ok(Seen { shown: len, end: (len < into.len()).then_some(len) });
        };
        place.open(flow, offset, asked);
        let room = place.bytes.get_mut(..asked).surely();
        let len = behind(peek(&mut self.scratch, room)?, offset)?;
        place.to = len;
        let end = (len < asked).then_some(len);
        let shown = self.show(flow, offset, into, end.map(|end| offset + end)).unwrap_or(0);
        Ok(Seen { shown, end })
    }

    /// Room for up to `count` bytes that nobody looks at; some at least.
    pub(super) fn scratch(&mut self, count: usize) -> &mut [u8] {
        if self.scratch.is_empty() {
            self.scratch.resize(SCRATCH, 0);
        }
        self.scratch.get_mut(..count.min(SCRATCH)).surely()
    }

    /// `count` bytes were taken from the front of the queue of `flow`.
    pub(super) fn taken(&mut self, flow: FlowId, count: usize) {
        if let Some(place) = self.of(flow) {
            let gone = count.saturating_sub(place.start);
            place.start = place.start.saturating_sub(count);
            place.from = (place.from + gone).min(place.to);
        }
    }

    /// The flow has ended.
    pub(super) fn forget(&mut self, flow: FlowId) {
        if let Some(place) = self.of(flow) {
            *place = Place::default();
        }
    }

    fn of(&mut self, flow: FlowId) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.tenant == Some(flow))
    }

    /// Copies what is known of the queue of `flow` from `offset` on. `None` when that is not enough for a whole frame,
    /// nor all there is: then more is to be brought.
    fn show(&mut self, flow: FlowId, offset: usize, into: &mut [u8], dry_at: Option<usize>) -> Option<usize> {
        let place = self.of(flow)?;
        let at = place.from + offset.checked_sub(place.start)?;
        let known = place.bytes.get(at..place.to).filter(|known| !known.is_empty())?;
        if known.len() < into.len() && dry_at != Some(offset + known.len()) {
            return None;
        }
        let shown = known.len().min(into.len());
        into.get_mut(..shown)?.copy_from_slice(known.get(..shown)?);
        place.used = place.used.max(at + shown);
        place.idle = false;
        Some(shown)
    }

    /// A place for `flow`: its own, one that is free or used up, or one that its flow does not look at.
    fn place(&mut self, flow: FlowId) -> Option<usize> {
        let find = |wanted: &dyn Fn(&Place) -> bool| self.places.iter().position(wanted);
        let found =
            find(&|place| place.tenant == Some(flow)).or_else(|| find(&|place| place.used >= place.to));
        if found.is_some() {
            return found;
        }
        self.refused += 1;
        if self.refused < REST {
            return None;
        }
        let idle = find(&|place| place.idle);
        self.refused = 0;
        self.places.iter_mut().for_each(|place| place.idle = true);
        idle
    }
}

impl Place {
    /// Nothing is known of the queue of `flow` but that `len` bytes from `offset` on are about to be.
    fn open(&mut self, flow: FlowId, offset: usize, len: usize) {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        (self.tenant, self.start, self.idle) = (Some(flow), offset, false);
        (self.from, self.to, self.used) = (0, 0, 0);
    }
}

/// Of so many bytes, those behind `offset`; zero only at the end of a stream of which nothing had to be skipped.
const fn behind(len: usize, offset: usize) -> Result<usize, Code> {
    match len.checked_sub(offset) {
        Some(0) if offset > 0 => Err(Code::EAGAIN),
        Some(len) => Ok(len),
        None => Err(Code::EAGAIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: FlowId = FlowId::new(1, 1);
    const FRAME: usize = 60_000;

    /// The receive queue of a socket, and how much was copied out of it.
    struct Queue {
        bytes: Vec<u8>,
        dry_at: Option<usize>,
        copied: usize,
        calls: usize,
    }

    impl Queue {
        fn new(len: usize) -> Self {
            let bytes = (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
            Self { bytes, dry_at: None, copied: 0, calls: 0 }
        }

        fn peek(
            &mut self,
            ahead: &mut Ahead,
            flow: FlowId,
            offset: usize,
            len: usize,
        ) -> Result<Vec<u8>, Code> {
            let mut into = vec![0; len];
            let seen = ahead.peek(flow, offset, &mut into, self.dry_at, |_, room| {
                let end = (offset + room.len()).min(self.bytes.len());
                if let Some(found) = self.bytes.get(offset..end) {
                    room[..found.len()].copy_from_slice(found);
                }
                self.copied += end;
                self.calls += 1;
                Ok(end)
            })?;
            into.truncate(seen.shown);
            self.dry_at = self.dry_at.or_else(|| seen.end.map(|end| offset + end));
            assert!(seen.shown == len || self.dry_at == Some(offset + seen.shown), "a frame is whole");
            assert_eq!(into, self.bytes[offset..offset + seen.shown]);
            assert!(seen.end.is_none_or(|end| offset + end == self.bytes.len()));
            Ok(into)
        }

        fn take(&mut self, ahead: &mut Ahead, flow: FlowId, count: usize) {
            self.bytes.drain(..count);
            self.dry_at = self.dry_at.map(|at| at - count);
            ahead.taken(flow, count);
        }
    }

    #[test]
    fn what_is_copied_grows_with_what_is_carried() {
        for len in [1 << 20, 4 << 20] {
            let (mut ahead, mut queue, mut offset) = (Ahead::default(), Queue::new(len), 0);
            while offset < len {
                offset += queue.peek(&mut ahead, FLOW, offset, FRAME).unwrap().len();
            }
            // Frame by frame it would be 9 times as many bytes for one mebibyte, and 35 times for four.
            assert!(queue.copied <= 4 * len && queue.calls <= 12, "{} in {}", queue.copied, queue.calls);
            assert_eq!(queue.peek(&mut ahead, FLOW, len, FRAME), Err(Code::EAGAIN));
        }
    }

    #[test]
    fn what_the_guest_acknowledges_meanwhile_moves_what_is_known() {
        let (mut ahead, mut queue, mut offset) = (Ahead::default(), Queue::new(8 << 20), 0);
        for turn in 0usize.. {
            match queue.peek(&mut ahead, FLOW, offset, FRAME) {
                Ok(found) => offset += found.len(),
                Err(error) => {
                    assert_eq!((error, offset), (Code::EAGAIN, queue.bytes.len()));
                    break;
                }
            }
            if turn % 5 == 4 {
                let count = offset * (turn % 3) / 2;
                queue.take(&mut ahead, FLOW, count);
                offset -= count;
                // A repeat from the front.
                queue.peek(&mut ahead, FLOW, 0, 1000.min(offset).max(1)).unwrap();
            }
        }
        assert!(queue.calls < (8 << 20) / FRAME, "{}", queue.calls);
    }

    #[test]
    fn short_exchanges_leave_no_trace() {
        let (mut ahead, mut queue) = (Ahead::default(), Queue::new(100));
        assert_eq!(queue.peek(&mut ahead, FLOW, 0, FRAME).unwrap().len(), 100);
        assert!(ahead.scratch.is_empty() && ahead.places.iter().all(|place| place.tenant.is_none()));
    }

    #[test]
    fn few_flows_read_ahead_and_who_does_not_go_on_makes_room() {
        let mut ahead = Ahead::default();
        let flow = |n: u32| FlowId::new(n, 0);
        let mut queues: Vec<Queue> = (0..6).map(|_| Queue::new(4 << 20)).collect();
        for n in 0..5 {
            queues[n as usize].peek(&mut ahead, flow(n), FRAME, FRAME).unwrap();
        }
        let has = |ahead: &Ahead, n: u32| ahead.places.iter().any(|place| place.tenant == Some(flow(n)));
        assert!((0..4).all(|n| has(&ahead, n)) && !has(&ahead, 4), "four places, and all in use");
        let mut rounds = 0;
        while !has(&ahead, 4) {
            // Three go on from there; the first one's guest does not read any more.
            (1..4).for_each(|n| drop(queues[n as usize].peek(&mut ahead, flow(n), FRAME, 10).unwrap()));
            queues[4].peek(&mut ahead, flow(4), FRAME, FRAME).unwrap();
            rounds += 1;
            assert!(rounds < 3 * REST);
        }
        assert!(!has(&ahead, 0) && (1..4).all(|n| has(&ahead, n)));
        ahead.forget(flow(1));
        queues[5].peek(&mut ahead, flow(5), FRAME, FRAME).unwrap();
        assert!(has(&ahead, 5), "at once");
    }
}
