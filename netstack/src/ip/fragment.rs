use crate::clock::Instant;
use crate::config::Mtu;
use crate::drop_reason::DropReason;
#[derive(Debug, Default)]
pub struct Reassembler;
pub enum Reassembled {
    Complete(Vec<u8>),
    Waiting,
    Dropped(DropReason),
}
impl Reassembler {
    pub fn insert(&mut self, _: Instant, _: &[u8]) -> Reassembled {
        Reassembled::Dropped(DropReason::Fragment)
    }
    pub fn expire(&mut self, _: Instant) -> Vec<DropReason> {
        Vec::new()
    }
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }
}
pub fn fragment(_: &[u8], _: Mtu, _: u32, _: impl FnMut(&[u8])) -> Result<(), DropReason> {
    Err(DropReason::TooBig)
}
