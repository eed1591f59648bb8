//! The proxy's service: leases by MAC address and version of IP, each with a task that keeps it.
//!
//! A call for version 4 is what the contract knows. One for version 6 finds out what there is of IPv6 for the same
//! interface. It may come at the same time: the two share nothing. A teardown of version 4 gives both back, since a
//! caller that knows only the contract asks for nothing else.
//!
//! One thread runs everything, so the lock is never waited for; it is not held across an await. A caller that goes away
//! while its lease is being obtained has its exchange dropped with the call, and what was granted by then is given
//! back. A teardown does the same to set-ups that it finds under way. A second set-up for the same interface takes the
//! place of the first only when it succeeds: until then, and if it does not, the first goes on.

use super::lease_file::LeaseFile;
use crate::dhcp::keeping::Stop;
use crate::dhcp::target::Target;
use crate::dhcp::{v4, v6};
use crate::proto::{self, Empty, NetavarkProxy, NetworkConfig, OperationResponse, Version};
use crate::spec::validate;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::dhcp_client::Identity;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

/// How long routers and servers may take to tell of IPv6. A link may well have none, and its containers are not to wait
/// long for that: three questions to routers, and two to servers.
const PATIENCE_V6: Duration = Duration::from_secs(4);

/// The service; clones share their leases.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    /// How long a server may take to grant a lease.
    patience: Duration,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever somebody wants something.
    activity: Notify,
}

#[derive(Debug)]
struct State {
    held: BTreeMap<Key, Held>,
    /// Set-ups that are under way, and some that were.
    attempts: Vec<Attempt>,
    file: LeaseFile,
    /// Calls that are under way.
    calls: usize,
    /// Tells one lease of an interface from the next.
    generation: u64,
}

/// Which lease: whose, and of which version of IP.
type Key = (MacAddr, Version);

/// A lease that is kept.
#[derive(Debug)]
struct Held {
    generation: u64,
    /// Where it is.
    target: Target,
    /// As it was when it was obtained, with the MAC address as the caller wrote it.
    lease: proto::Lease,
    /// Whether it is in the lease file.
    listed: bool,
    stop: oneshot::Sender<Stop>,
    task: JoinHandle<()>,
}

/// A set-up that is under way.
#[derive(Debug)]
struct Attempt {
    key: Key,
    /// Ends it. What is sent is dropped when it has ended.
    cancel: oneshot::Sender<oneshot::Sender<()>>,
}

/// A keeper that may come to nothing, as when its caller goes: then what it was granted is given back.
struct Unheld<'a> {
    shared: &'a Shared,
    key: Key,
    keeper: &'a mut v6::Keeper,
    /// Whether it came to something.
    granted: bool,
}

/// A call that is under way, for as long as it lives.
struct Call<'a>(&'a Shared);

impl Service {
    /// A service without leases, whose lease file is in `dir`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn new(dir: &Path, patience: Duration) -> crate::Result<Self> {
        let file = LeaseFile::new(dir);
        file.write(std::iter::empty()).map_err(|error| {
            crate::Error::msg(format!("cannot create the lease file {}: {error}", file.path()))
        })?;
        let state =
            Mutex::new(State { held: BTreeMap::new(), attempts: Vec::new(), file, calls: 0, generation: 0 });
        Ok(Self { shared: Arc::new(Shared { state, activity: Notify::new() }), patience })
    }

    /// Returns when nobody has wanted anything for `time`, and no lease is held.
    pub(crate) async fn idle(&self, time: Duration) {
        loop {
            let active = tokio::time::timeout(time, self.shared.activity.notified()).await.is_ok();
            let state = self.shared.state();
            if !active && state.calls == 0 && state.held.is_empty() {
                return;
            }
        }
    }

    async fn obtain(&self, config: &NetworkConfig) -> Result<proto::Lease, Status> {
        let mac = validate::mac(&config.container_mac_addr)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let version = Version::try_from(config.version)
            .map_err(|_| Status::invalid_argument("invalid protocol version"))?;
        let target = Target::of(config);
        target.check().map_err(|error| status(Code::InvalidArgument, &error))?;
        let cancelled = self.shared.begin((mac, version));
        let obtained = async {
            match version {
                Version::V4 => self.obtain_v4(mac, config, target).await,
                Version::V6 => self.obtain_v6(mac, config, target).await,
            }
        };
        let waiting = tokio::select! {
            // A lease that comes in the same moment would be held after all.
            biased;
            waiting = cancelled => waiting,
            obtained = obtained => return obtained,
        };
        // Here the attempt has been dropped.
        drop(waiting);
        Err(Status::cancelled("the container was taken down meanwhile"))
    }

    async fn obtain_v4(
        &self,
        mac: MacAddr,
        config: &NetworkConfig,
        target: Target,
    ) -> Result<proto::Lease, Status> {
        let (name, host_name) = (config.container_id.clone(), config.host_name.clone());
        let identity = Identity { mac, name, host_name, is_host: false };
        let mut keeper = v4::Keeper::new(config.host_iface.clone(), identity)
            .map_err(|error| status(Code::InvalidArgument, &error))?;
        let lease = match tokio::time::timeout(self.patience, keeper.acquire()).await {
            Ok(result) => result.map_err(|error| status(Code::Internal, &error))?,
            Err(_) => {
                let (interface, seconds) = (&config.host_iface, self.patience.as_secs());
                let text = format!("no DHCP server granted an address on {interface} within {seconds} s");
                return Err(Status::aborted(text));
            }
        };
        let key = (mac, Version::V4);
        if let Err(error) = target.configure(&lease) {
            if !self.shared.holds(key) {
                keeper.release();
            }
            return Err(status(Code::Unknown, &error));
        }
        let message = v4::to_message(&lease, &config.container_mac_addr, &config.domain_name);
        let (stop, stopped) = oneshot::channel();
        self.hold(key, target.clone(), message, stop, keeper.keep(lease, target, stopped))
    }

    async fn obtain_v6(
        &self,
        mac: MacAddr,
        config: &NetworkConfig,
        target: Target,
    ) -> Result<proto::Lease, Status> {
        let interface = &config.host_iface;
        if target.ipv6_is_off().map_err(|error| status(Code::Internal, &error))? {
            let name = &target.interface;
            return Err(Status::failed_precondition(format!(
                "IPv6 is switched off for {name} in the container (net.ipv6.conf.{name}.disable_ipv6)"
            )));
        }
        let identity =
            v6::Identity::new(mac, &config.container_id, &config.container_iface, &config.host_name);
        let mut keeper = v6::Keeper::new(interface.clone(), target.clone(), identity)
            .map_err(|error| status(Code::InvalidArgument, &error))?;
        let key = (mac, Version::V6);
        let mut unheld = Unheld { shared: &self.shared, key, keeper: &mut keeper, granted: false };
        let patience = self.patience.min(PATIENCE_V6);
        let found = unheld.keeper.acquire(patience).await.map_err(|error| status(Code::Internal, &error))?;
        let Some(message) = found.to_message(&config.container_mac_addr, &config.domain_name) else {
            let text = found.why_nothing(interface, patience);
            return Err(Status::aborted(text));
        };
        unheld.granted = true;
        drop(unheld);
        let (stop, stopped) = oneshot::channel();
        self.hold(key, target, message, stop, keeper.keep(stopped))
    }

    /// Starts the task that keeps a lease, and hands out what is told of it.
    fn hold(
        &self,
        key: Key,
        target: Target,
        lease: proto::Lease,
        stop: oneshot::Sender<Stop>,
        keep: impl Future<Output = bool> + Send + 'static,
    ) -> Result<proto::Lease, Status> {
        let mut state = self.shared.state();
        state.generation += 1;
        let generation = state.generation;
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            if keep.await {
                shared.gone(key, generation);
            }
        });
        let held = Held { generation, target, lease: lease.clone(), listed: true, stop, task };
        if let Some(before) = state.held.insert(key, held) {
            let _ = before.stop.send(Stop::Forget);
        }
        let written = state.write();
        written.map_err(|error| Status::internal(format!("cannot write the lease file: {error}")))?;
        Ok(lease)
    }

    async fn give_back(&self, config: &NetworkConfig) -> Result<proto::Lease, Status> {
        let versions = match Version::try_from(config.version) {
            Ok(Version::V6) => &[Version::V6][..],
            _ => &[Version::V4, Version::V6],
        };
        let (attempts, held) = {
            let mut state = self.shared.state();
            let Ok(mac) = validate::mac(&config.container_mac_addr) else {
                return Ok(proto::Lease::default());
            };
            let held: Vec<_> =
                versions.iter().filter_map(|version| state.held.remove(&(mac, *version))).collect();
            let its = |attempt: &mut Attempt| attempt.key.0 == mac && versions.contains(&attempt.key.1);
            let attempts: Vec<_> = state.attempts.extract_if(.., its).collect();
            if !held.is_empty() {
                state.write_or_log();
            }
            (attempts, held)
        };
        for attempt in attempts {
            let (waiting, ended) = oneshot::channel();
            let _ = attempt.cancel.send(waiting);
            let _ = ended.await;
        }
        let mut answer = None;
        for held in held {
            let _ = held.stop.send(Stop::Release);
            if let Err(error) = held.task.await {
                log::error!("the lease of {} was not released: {error}", held.lease.mac_address);
            }
            if held.listed {
                answer.get_or_insert(held.lease);
            }
        }
        Ok(answer.unwrap_or_default())
    }
}

#[tonic::async_trait]
impl NetavarkProxy for Service {
    async fn setup(&self, request: Request<NetworkConfig>) -> Result<Response<proto::Lease>, Status> {
        let _call = self.shared.call();
        let config = request.into_inner();
        log::debug!("setup of {config:?}");
        let result = self.obtain(&config).await;
        if let Err(status) = &result {
            log::warn!("no lease for {}: {}", config.container_mac_addr, status.message());
        }
        result.map(Response::new)
    }

    async fn teardown(&self, request: Request<NetworkConfig>) -> Result<Response<proto::Lease>, Status> {
        let _call = self.shared.call();
        let config = request.into_inner();
        log::debug!("teardown of {config:?}");
        self.give_back(&config).await.map(Response::new)
    }

    async fn clean(&self, _: Request<Empty>) -> Result<Response<OperationResponse>, Status> {
        let mut state = self.shared.state();
        state.held.values_mut().for_each(|held| held.listed = false);
        state.write().map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(OperationResponse { success: true }))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self) -> Call<'_> {
        self.activity.notify_one();
        self.state().calls += 1;
        Call(self)
    }

    /// A set-up begins. It ends when something comes.
    fn begin(&self, key: Key) -> oneshot::Receiver<oneshot::Sender<()>> {
        let (cancel, cancelled) = oneshot::channel();
        let mut state = self.state();
        state.attempts.retain(|attempt| !attempt.cancel.is_closed());
        state.attempts.push(Attempt { key, cancel });
        // A container that was not taken down leaves its keeper behind; the server grants the same lease again.
        if state.held.get(&key).is_some_and(|held| !held.target.exists())
            && let Some(held) = state.held.remove(&key)
        {
            let _ = held.stop.send(Stop::Forget);
            state.write_or_log();
        }
        cancelled
    }

    /// Whether somebody keeps this lease.
    fn holds(&self, key: Key) -> bool {
        self.state().held.contains_key(&key)
    }

    /// A container has gone without a word.
    fn gone(&self, key: Key, generation: u64) {
        let mut state = self.state();
        if state.held.get(&key).is_some_and(|held| held.generation == generation) {
            state.held.remove(&key);
            state.write_or_log();
        }
    }
}

impl Drop for Unheld<'_> {
    fn drop(&mut self) {
        // The server grants the same to one that is held for this interface, which goes on with it.
        if !self.granted && !self.shared.holds(self.key) {
            self.keeper.abandon();
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.state().calls -= 1;
        self.0.activity.notify_one();
    }
}

impl State {
    fn write(&self) -> std::io::Result<()> {
        let listed = self.held.values().filter(|held| held.listed);
        self.file.write(listed.map(|held| (held.lease.mac_address.as_str(), &held.lease)))
    }

    fn write_or_log(&self) {
        if let Err(error) = self.write() {
            log::error!("cannot write the lease file: {error}");
        }
    }
}

fn status(code: Code, error: &crate::Error) -> Status {
    Status::new(code, error.to_string())
}
