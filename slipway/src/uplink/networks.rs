//! Networks and their workers: what a request changes.
//!
//! Records first, then the workers are told. A worker that does not answer is passed over here; that it has hung up is
//! noticed by the loop, which calls [`Networks::bury`]. Ports follow their container: after every change of its
//! addresses its publication is planned anew, and moved if the plan is another.

mod status;

use super::orders::{MAX_RULES, Order};
use super::ports::Port;
use super::processes::{Fate, Leaving, Process};
use super::publications::{Live, Planned, Publication, Strings, plan};
use super::records::Records;
use super::starter::Starter;
use nix::errno::Errno;
use serde_json::Value;
use slipway_uplink::envelope::Refusal;
use slipway_uplink::protocol::{Container, Network};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Everything that the uplink serves.
#[derive(Debug)]
pub struct Networks {
    records: Records,
    processes: BTreeMap<String, Process>,
    leaving: Leaving,
    publications: BTreeMap<String, Publication>,
    last_id: u64,
    host_loopback: bool,
    starter: Rc<Starter>,
}

impl Networks {
    /// None. With `host_loopback` the gateways to come lead to the host's loopback.
    #[must_use]
    pub fn new(starter: Starter, host_loopback: bool) -> Self {
        let starter = Rc::new(starter);
        Self {
            records: Records::default(),
            processes: BTreeMap::new(),
            leaving: Leaving::new(Rc::clone(&starter)),
            publications: BTreeMap::new(),
            last_id: 0,
            host_loopback,
            starter,
        }
    }

    /// The worker of a network.
    #[must_use]
    pub fn process(&self, network: &str) -> Option<&Process> {
        self.processes.get(network)
    }

    /// The published ports of a container.
    #[must_use]
    pub fn publication(&self, container: &str) -> Option<&Publication> {
        self.publications.get(container)
    }

    /// The containers that have published ports.
    pub fn publishers(&self) -> impl Iterator<Item = &str> {
        self.publications.keys().map(String::as_str)
    }

    /// A container is on a network. Tells whether the network is served; if not, its TAP is wanted.
    pub fn join(&mut self, network: Network, container: Container) -> bool {
        let id = network.id.clone();
        let who = container.id.clone();
        if self.records.join(network.clone(), container.clone()) {
            self.end(&id);
        }
        self.tell(&Order::Put { network, container, more: false });
        self.follow(&who);
        self.processes.contains_key(&id)
    }

    /// Serves a network on its TAP, on this one from now on if it is served already.
    ///
    /// # Errors
    /// When nobody has joined it, or no process can be started on that descriptor.
    pub fn attach(&mut self, network: &str, tap: OwnedFd) -> Result<(), Refusal> {
        let Some(entry) = self.records.network(network) else {
            return Err(Refusal {
                text: format!("no container has joined the network {network}: send join first"),
                errno: Some(Errno::ENOENT as i32),
            });
        };
        let process =
            Process::start(&self.starter, &entry.network, tap, self.host_loopback, &mut self.leaving)?;
        // All names, its own and those that its containers see through other networks.
        let networks = self.records.networks();
        let mut members: Vec<_> =
            networks.flat_map(|of| of.containers().map(|container| (&of.network, container))).collect();
        let last = members.pop();
        let puts = members.into_iter().map(|it| (it, true)).chain(last.map(|it| (it, false)));
        for ((of, container), more) in puts {
            process.call(&Order::Put { network: of.clone(), container: container.clone(), more })?;
        }
        self.end(network);
        self.processes.insert(network.to_owned(), process);
        for container in self.publications.keys().cloned().collect::<Vec<_>>() {
            self.follow(&container);
        }
        Ok(())
    }

    /// A container has left a network; tells how many are left there. A network without containers is not served any
    /// more.
    pub fn leave(&mut self, network: &str, container: &str) -> usize {
        if self.records.leave(network, container).is_some() {
            // Before its addresses are forgotten, so that no client is led to where nobody is.
            self.follow(container);
            self.tell(&Order::Remove { network: network.to_owned(), container: container.to_owned() });
        }
        let left = self.records.count(network);
        if left == 0 {
            self.drop_network(network);
        }
        left
    }

    /// Publishes ports of a container; gives their ids. What it has published before is replaced, or kept if it is the
    /// same.
    ///
    /// # Errors
    /// When they cannot be had, all of them; what the container had published before is gone then.
    pub fn publish(
        &mut self,
        container: &str,
        mappings: Vec<Vec<Port>>,
        Strings { exit, door }: Strings,
    ) -> Result<Vec<u64>, Refusal> {
        if !self.records.knows(container) {
            return Err(Refusal {
                text: format!("the container {container} is on no network of the uplink"),
                errno: Some(Errno::ENOENT as i32),
            });
        }
        let planned = self.plan(container, &mappings)?;
        if let Some(known) = self.publications.get_mut(container)
            && known.mappings == mappings
            && known.is(&planned)
        {
            // A second network of the container, or the first program was replaced: the last descriptors count.
            known.exit = exit.or_else(|| known.exit.take());
            known.door = door.or_else(|| known.door.take());
            return Ok(known.ids.clone());
        }
        self.unpublish(container);
        let live = self.open(planned)?;
        let count = u64::try_from(mappings.len()).unwrap_or(0);
        let ids: Vec<u64> = (self.last_id + 1..=self.last_id + count).collect();
        self.last_id += count;
        let publication = Publication { mappings, ids: ids.clone(), exit, door, live };
        self.publications.insert(container.to_owned(), publication);
        Ok(ids)
    }

    /// Takes all that a container has published out of force.
    pub fn unpublish(&mut self, container: &str) {
        if let Some(publication) = self.publications.remove(container) {
            self.close(publication.live);
        }
    }

    /// The container's addresses may be others than before: its ports are led there.
    ///
    /// # Errors
    /// When a port cannot be had any more, or there is no address for it. The publication is asleep then, until the
    /// next change.
    pub fn reload(&mut self, container: &str) -> Result<(), Refusal> {
        let Some(publication) = self.publications.get(container) else { return Ok(()) };
        let planned = self.plan(container, &publication.mappings);
        if planned.as_ref().is_ok_and(|planned| publication.is(planned)) {
            return Ok(());
        }
        let Some(publication) = self.publications.get_mut(container) else { return Ok(()) };
        let live = std::mem::take(&mut publication.live);
        self.close(live);
        let live = self.open(planned?)?;
        if let Some(publication) = self.publications.get_mut(container) {
            publication.live = live;
        }
        Ok(())
    }

    /// The worker of a network has hung up.
    pub fn bury(&mut self, network: &str) {
        let Some(process) = self.processes.remove(network) else { return };
        self.forget_rules(network);
        match process.bury(&mut self.leaving) {
            Fate::LinkLost => {
                log::info!("the TAP of the network {network} is gone, and so is the network");
                self.drop_network(network);
            }
            Fate::Died(tap) => {
                if let Err(refusal) = self.attach(network, tap) {
                    log::warn!("the network {network} is not served any more: {refusal}");
                }
            }
            Fate::Stillborn => log::warn!("the process of the network {network} has died: it is not served"),
        }
    }

    fn plan(&self, container: &str, mappings: &[Vec<Port>]) -> Result<Vec<Planned>, Refusal> {
        plan(&self.records, &|network| self.processes.contains_key(network), container, mappings)
    }

    /// Tells all workers.
    fn tell(&self, order: &Order) {
        for (network, process) in &self.processes {
            if let Err(refusal) = process.call(order) {
                log::warn!("network {network}: {refusal}");
            }
        }
    }

    /// Leads the ports of a container to where it is now. One that is nowhere keeps its publication only if that hangs
    /// on something else.
    fn follow(&mut self, container: &str) {
        let gone = !self.records.knows(container);
        if gone && self.publications.get(container).is_some_and(|publication| publication.exit.is_none()) {
            return self.unpublish(container);
        }
        if let Err(refusal) = self.reload(container)
            && !gone
        {
            log::warn!("published ports of the container {container}: {refusal}");
        }
    }

    /// Forgets a network, its worker and its containers.
    fn drop_network(&mut self, network: &str) {
        self.end(network);
        for container in self.records.remove(network) {
            self.tell(&Order::Remove { network: network.to_owned(), container: container.clone() });
            self.follow(&container);
        }
    }

    /// Ends the worker of a network, and with it the rules in it.
    fn end(&mut self, network: &str) {
        if let Some(process) = self.processes.remove(network) {
            process.release(&mut self.leaving);
            self.forget_rules(network);
        }
    }

    /// Ends all workers.
    pub fn end_all(&mut self) {
        let all = std::mem::take(&mut self.processes).into_values().collect();
        Process::release_all(all, &mut self.leaving);
    }

    /// Workers that serve no network any more.
    pub const fn leaving(&mut self) -> &mut Leaving {
        &mut self.leaving
    }

    /// The rules that a worker had are gone with it.
    fn forget_rules(&mut self, network: &str) {
        for publication in self.publications.values_mut() {
            publication.live.retain(|live| live.planned.network != network);
        }
    }

    /// Puts rules in force, all or none.
    fn open(&self, planned: Vec<Planned>) -> Result<Vec<Live>, Refusal> {
        let mut live: Vec<Live> = Vec::with_capacity(planned.len());
        let mut rest = planned.into_iter().peekable();
        while let Some(first) = rest.next() {
            let mut run = vec![first];
            let fits = |run: &[Planned], next: &Planned| {
                run.len() < MAX_RULES && run.first().is_some_and(|it| it.network == next.network)
            };
            while let Some(next) = rest.next_if(|next| fits(&run, next)) {
                run.push(next);
            }
            match self.open_in(&run) {
                Ok(ids) => live.extend(run.into_iter().zip(ids).map(|(planned, id)| Live { planned, id })),
                Err(refusal) => {
                    self.close(live);
                    return Err(refusal);
                }
            }
        }
        Ok(live)
    }

    /// The same for rules of one network; gives their ids in its worker.
    fn open_in(&self, run: &[Planned]) -> Result<Vec<u64>, Refusal> {
        let Some(network) = run.first().map(|planned| planned.network.as_str()) else {
            return Ok(Vec::new());
        };
        let Some(process) = self.processes.get(network) else {
            return Err(Refusal::new(format!("the network {network} is not attached")));
        };
        let rules = run.iter().map(|planned| planned.rule.to_string()).collect();
        let reply = process.call(&Order::Publish { rules })?;
        let ids = reply["ids"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        Ok(ids.collect())
    }

    /// Takes rules out of force.
    fn close(&self, live: Vec<Live>) {
        let mut of_network: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for Live { planned, id } in live {
            of_network.entry(planned.network).or_default().push(id);
        }
        for (network, ids) in of_network {
            let Some(process) = self.processes.get(&network) else { continue };
            for ids in ids.chunks(MAX_RULES) {
                if let Err(refusal) = process.call(&Order::Withdraw { ids: ids.to_vec() }) {
                    log::warn!("network {network}: {refusal}");
                }
            }
        }
    }
}
