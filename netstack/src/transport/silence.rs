//! Flows in the order of their silence: who was heard longest ago is known without a look at the others.
//!
//! Datagram flows have no end of their own, and each holds something that the host has few of, a port or an identifier.
//! When too many hold one, that of whoever has been silent longest is taken back ([`Silence::longest`]). Three doubly
//! linked lists over one array, by flow index: to move a flow to the end of its list is to change a few numbers, and
//! for the flow that is there already, the usual case, one comparison.

use crate::flow::FlowId;

/// The lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// UDP flows with a socket of their own to which nobody has ever answered.
    Unanswered,
    /// The other UDP flows with a socket of their own.
    Answered,
    /// Echo flows.
    Echo,
}

const LISTS: usize = 3;

/// A flow's place between its neighbours.
#[derive(Debug, Clone, Copy)]
struct Link {
    flow: FlowId,
    list: Option<List>,
    before: Option<u32>,
    behind: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    first: Option<u32>,
    last: Option<u32>,
    count: usize,
}

/// Flows by how long they have been silent.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    links: Vec<Link>,
    ends: [Ends; LISTS],
}

impl Silence {
    /// `flow` was heard now, and belongs to `list`.
    pub(crate) fn heard(&mut self, flow: FlowId, list: List) {
        let Ok(at) = u32::try_from(flow.index()) else { return };
        if self.ends(list).last == Some(at) {
            return;
        }
        self.remove(flow);
        if self.links.len() <= flow.index() {
            let vacant = Link { flow, list: None, before: None, behind: None };
            self.links.resize(flow.index() + 1, vacant);
        }
        let before = self.ends(list).last.replace(at);
        match before.and_then(|before| self.link(before)) {
            Some(before) => before.behind = Some(at),
            None => self.ends(list).first = Some(at),
        }
        self.ends(list).count += 1;
        if let Some(link) = self.link(at) {
            *link = Link { flow, list: Some(list), before, behind: None };
        }
    }

    /// `flow` has ended.
    pub(crate) fn remove(&mut self, flow: FlowId) {
        let Some(link) = self.links.get_mut(flow.index()) else { return };
        let Some(list) = link.list.take() else { return };
        let Link { before, behind, .. } = *link;
        match before.and_then(|before| self.link(before)) {
            Some(link) => link.behind = behind,
            None => self.ends(list).first = behind,
        }
        match behind.and_then(|behind| self.link(behind)) {
            Some(link) => link.before = before,
            None => self.ends(list).last = before,
        }
        self.ends(list).count -= 1;
    }

    /// Who has been silent longest.
    pub(crate) fn longest(&mut self, list: List) -> Option<FlowId> {
        let first = self.ends(list).first?;
        self.link(first).map(|link| link.flow)
    }

    /// How many UDP flows there are.
    pub(crate) fn of_udp(&mut self) -> usize {
        self.count(List::Unanswered) + self.count(List::Answered)
    }

    /// How many flows are in a list.
    pub(crate) fn count(&mut self, list: List) -> usize {
        self.ends(list).count
    }

    fn link(&mut self, at: u32) -> Option<&mut Link> {
        self.links.get_mut(at as usize)
    }

    const fn ends(&mut self, list: List) -> &mut Ends {
        let [unanswered, answered, echo] = &mut self.ends;
        match list {
            List::Unanswered => unanswered,
            List::Answered => answered,
            List::Echo => echo,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIST: [List; LISTS] = [List::Unanswered, List::Answered, List::Echo];

    proptest! {
        #[test]
        fn the_order_is_that_of_the_last_words(steps in proptest::collection::vec((0_u32..12, 0_usize..4), 0..200)) {
            let mut silence = Silence::default();
            let mut model: [Vec<FlowId>; LISTS] = Default::default();
            for (index, step) in steps {
                let flow = FlowId::new(index, 1);
                model.iter_mut().for_each(|list| list.retain(|other| *other != flow));
                match LIST.get(step) {
                    Some(list) => {
                        silence.heard(flow, *list);
                        model[step].push(flow);
                    }
                    None => silence.remove(flow),
                }
                for (list, model) in LIST.iter().zip(&model) {
                    prop_assert_eq!(silence.longest(*list), model.first().copied());
                    prop_assert_eq!(silence.count(*list), model.len());
                }
            }
            for (list, model) in LIST.iter().zip(&model) {
                for flow in model {
                    prop_assert_eq!(silence.longest(*list), Some(*flow));
                    silence.remove(*flow);
                }
                prop_assert_eq!(silence.longest(*list), None);
            }
        }
    }
}
