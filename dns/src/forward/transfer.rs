//! Zone transfers over TCP: one question, many messages (RFC 5936 §2.2, RFC 1995 §4).
//!
//! The messages are relayed as they come. The end is where the zone's SOA comes for the last time:
//!
//! * AXFR, and IXFR in the same form: SOA, all records, SOA;
//! * IXFR with differences: the new SOA, then for each difference the old SOA, what is removed, the newer SOA, what is
//!   added, and at the end the new SOA again, for the third time;
//! * IXFR with nothing new: that SOA alone, which looks like the beginning of the others. Then the end is where the
//!   server closes, or says nothing more.

use crate::message::{Query, RecordType, Reply};

/// What has come of a transfer.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    /// IXFR was asked for.
    incremental: bool,
    /// The serial of the SOA that it began with.
    serial: Option<[u8; 4]>,
    records: usize,
    /// The second record is an SOA as well: these are differences.
    differences: bool,
    /// How often the first SOA has come.
    seen: u8,
}

impl Transfer {
    /// The transfer that a query asks for, if it does.
    pub(super) fn of(query: &Query<'_>) -> Option<Self> {
        let kind = query.record_type();
        let wants = query.opcode() == 0 && matches!(kind, RecordType::AXFR | RecordType::IXFR);
        wants.then(|| Self { incremental: kind == RecordType::IXFR, ..Self::default() })
    }

    /// Whether anything has come.
    pub(super) const fn has_begun(&self) -> bool {
        self.records > 0
    }

    /// Another message has come. Whether it is the last.
    pub(super) fn message(&mut self, reply: &Reply<'_>) -> bool {
        let mut last = false;
        let read = reply.records(|section, record_type, _, _, data| {
            if section > 0 {
                return;
            }
            self.records += 1;
            // RFC 1035 §3.3.13: two names, then five numbers, of which the serial is the first.
            let serial = data.len().checked_sub(20).and_then(|at| data.get(at..)?.first_chunk::<4>());
            last = false;
            if record_type == RecordType::SOA {
                self.differences |= self.incremental && self.records == 2;
                if *self.serial.get_or_insert_with(|| serial.copied().unwrap_or_default())
                    == serial.copied().unwrap_or_default()
                {
                    self.seen = self.seen.saturating_add(1);
                    last = self.seen >= if self.differences { 3 } else { 2 };
                }
            }
        });
        read.is_err() || last || !self.has_begun()
    }
}
