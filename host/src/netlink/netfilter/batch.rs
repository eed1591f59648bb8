//! A transaction: messages between NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END, of which the kernel takes all or none.
//!
//! The kernel works while the sender waits in sendmsg(2), so all its answers are there when that returns. The last
//! message asks for an acknowledgement; a message that is refused is answered with its sequence number, from which
//! [`Refused::message`] is found. The beginning may name the generation of the ruleset that the transaction was planned
//! for: when somebody else has changed it since, the answer is ERESTART, and nothing has happened.
//!
//! Source: Linux `net/netfilter/nfnetlink.c` (nfnetlink_rcv_batch), kernel 4.13 and newer for the generation.

use super::Attributes;
use super::socket::{Netfilter, header};
use crate::strerror::strerror;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use nix::errno::Errno;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// NFNL_BATCH_GENID.
const GENERATION: u16 = 1;

/// Messages that the kernel takes all or none.
#[derive(Debug)]
pub struct Batch {
    list: Attributes,
    subsystem: u8,
    /// Where each message begins; the first is the beginning of the batch itself.
    starts: Vec<usize>,
}

/// Why nothing of a [`Batch`] has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", strerror(*.errno))]
pub struct Refused {
    /// The message that the kernel refused first, counted from zero; `None` when it was the transaction as a whole.
    pub message: Option<usize>,
    /// Its answer.
    pub errno: Errno,
}

impl Batch {
    /// An empty one for a subsystem (NFNL_SUBSYS_NFTABLES), to be taken only if the ruleset is of that generation.
    #[must_use]
    pub fn new(subsystem: u8, generation: Option<u32>) -> Self {
        let mut batch = Self { list: Attributes::default(), subsystem, starts: Vec::new() };
        batch.append(BATCH_BEGIN, 0, 0, u16::from(subsystem), |list| {
            if let Some(generation) = generation {
                list.number(GENERATION, generation);
            }
        });
        batch
    }

    /// Adds a message. `kind` is the subsystem's own number of it, `flags` those besides NLM_F_REQUEST.
    pub fn push(&mut self, kind: u8, family: u8, flags: u16, write: impl FnOnce(&mut Attributes)) {
        self.append(u16::from_be_bytes([self.subsystem, kind]), flags, family, 0, write);
    }

    /// Whether it has no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.len() < 2
    }

    fn append(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        write: impl FnOnce(&mut Attributes),
    ) {
        let start = self.list.as_bytes().len();
        self.list.extend(&header(kind, NLM_F_REQUEST | flags, self.starts.len(), family, resource));
        self.starts.push(start);
        write(&mut self.list);
        self.list.close_message(start);
    }

    /// The whole transaction. Sequence numbers are the messages' positions.
    fn finish(mut self) -> Result<(Vec<u8>, usize), Refused> {
        let last = self.starts.last().copied().unwrap_or_default();
        self.append(BATCH_END, 0, 0, u16::from(self.subsystem), |_| {});
        if self.list.overflown() {
            return Err(Refused { message: None, errno: Errno::EMSGSIZE });
        }
        let messages = self.starts.len() - 1;
        let mut bytes = self.list.as_bytes().to_vec();
        // nlmsg_flags stands after nlmsg_len and nlmsg_type.
        if let Some(flags) = bytes.get_mut(last + 6..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            *flags = (u16::from_ne_bytes(*flags) | NLM_F_ACK).to_ne_bytes();
        }
        Ok((bytes, messages))
    }
}

impl Netfilter {
    /// Carries out a transaction, or nothing of it.
    ///
    /// # Errors
    /// The kernel's first refusal; ERESTART when the ruleset is of another generation than the batch was planned for.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Refused> {
        if batch.is_empty() {
            return Ok(());
        }
        let whole = |errno| Refused { message: None, errno };
        let (bytes, messages) = batch.finish()?;
        self.send_batch(&bytes).map_err(whole)?;
        let mut refused: Option<Refused> = None;
        let mut acknowledged = false;
        while let Some(answers) = self.answers_now().map_err(whole)? {
            for answer in answers {
                let sequence = usize::try_from(answer.sequence).unwrap_or(usize::MAX);
                match answer.refusal {
                    // The last message, whose sequence number is the count of all before it.
                    None => acknowledged |= sequence + 1 == messages,
                    Some(errno) => {
                        refused =
                            refused.or_else(|| Some(Refused { message: sequence.checked_sub(1), errno }));
                    }
                }
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None if acknowledged => Ok(()),
            None => Err(whole(Errno::EIO)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::socket::HEADER;
    use super::*;

    #[test]
    fn a_batch_has_its_beginning_and_its_end() {
        let mut batch = Batch::new(10, Some(7));
        assert!(batch.is_empty());
        batch.push(0, 1, 0x400, |list| list.text(1, "t"));
        assert!(!batch.is_empty());
        let (bytes, messages) = batch.finish().unwrap();
        assert_eq!(messages, 2);
        assert_eq!(bytes.len(), (HEADER + 8) + (HEADER + 8) + HEADER);
        assert_eq!(bytes[..4], 28_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 0x10_u16.to_ne_bytes());
        assert_eq!(bytes[18..20], [0, 10], "res_id is big-endian");
        assert_eq!(bytes[20..28], [8, 0, 1, 0, 0, 0, 0, 7]);
        assert_eq!(bytes[28 + 4..28 + 6], 0x0a00_u16.to_ne_bytes());
        assert_eq!(bytes[28 + 6..28 + 8], 0x405_u16.to_ne_bytes(), "the last message asks for an answer");
        assert_eq!(bytes[56 + 4..56 + 6], 0x11_u16.to_ne_bytes());
    }

    #[test]
    fn a_message_too_long_is_refused_here() {
        let mut batch = Batch::new(10, None);
        batch.push(0, 1, 0, |list| list.bytes(1, &vec![0; 70_000]));
        assert_eq!(batch.finish().unwrap_err().errno, Errno::EMSGSIZE);
    }
}
