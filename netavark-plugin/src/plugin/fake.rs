//! A test double of `slipway uplink`: it keeps the same books and answers as the protocol says, but carries no packet.
//!
//! It is written from the protocol alone and shares no type with the plugin. Tests may have it refuse a request, forget
//! everything (as an uplink that was started anew has), or say nothing at all. The end-to-end tests have the real one.

use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, listen, shutdown, socket,
};
use serde_json::{Map, Value, json};
use slipway_host::device::tap::Tap;
use slipway_host::sys::{fdpass, sockopt};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is known of a network.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// As it was told.
    pub(crate) told: Value,
    /// Containers by ID, as they were told.
    pub(crate) containers: BTreeMap<String, Value>,
    /// The TAP, if it was handed over.
    pub(crate) tap: Option<Tap>,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) networks: BTreeMap<String, Network>,
    /// Container and ports.
    pub(crate) rules: Vec<(String, Value)>,
    /// Requests, in order.
    pub(crate) asked: Vec<String>,
    /// Answers that are given instead of the right ones, by request; `null` for none at all.
    pub(crate) instead: BTreeMap<String, Value>,
}

/// The uplink.
#[derive(Debug)]
pub(crate) struct Fake {
    path: PathBuf,
    listener: OwnedFd,
    books: Arc<Mutex<Books>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Listens at `path`.
    pub(crate) fn start(path: &Path) -> Self {
        let _ = std::fs::remove_file(path);
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        listen(&listener, Backlog::new(8).unwrap()).unwrap();
        let books = Arc::new(Mutex::new(Books::default()));
        let theirs = Arc::clone(&books);
        let waiting = listener.try_clone().unwrap();
        let thread = std::thread::spawn(move || serve(waiting, &theirs));
        Self { path: path.to_owned(), listener, books, thread: Some(thread) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// The requests since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.books().asked)
    }

    /// The names of the containers on a network.
    pub(crate) fn names(&self, network: &str) -> Vec<String> {
        let books = self.books();
        let containers =
            books.networks.get(network).into_iter().flat_map(|network| network.containers.values());
        containers.map(|told| told["name"].as_str().unwrap().to_owned()).collect()
    }

    /// As after a restart: nothing is known, no TAP is held.
    pub(crate) fn forget(&self) {
        let mut books = self.books();
        books.networks.clear();
        books.rules.clear();
    }

    /// Answers `request` with this instead.
    pub(crate) fn instead(&self, request: &str, answer: Value) {
        self.books().instead.insert(request.to_owned(), answer);
    }

    /// Whether a frame from a container arrives at the network's TAP within a second or two.
    pub(crate) fn hears(&self, network: &str) -> bool {
        for _ in 0..200 {
            if let Some(tap) = self.books().networks.get_mut(network).and_then(|network| network.tap.as_mut())
                && let Ok(Some(_)) = tap.read_frame(&mut [0; 65_600])
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // Wakes the thread up, for good.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(listener: OwnedFd, books: &Mutex<Books>) {
    // accept(2) does not care for the type of the socket, and neither does this.
    let listener = UnixListener::from(listener);
    loop {
        let Ok((client, _)) = listener.accept() else { return };
        let client = OwnedFd::from(client);
        sockopt::set_patience(client.as_fd(), Duration::from_secs(20)).unwrap();
        converse(&client, books);
    }
}

fn converse(client: &OwnedFd, books: &Mutex<Books>) {
    let mut buffer = vec![0; 65_536];
    while let Ok((len, fd)) = fdpass::receive(client.as_fd(), &mut buffer) {
        if len == 0 {
            return;
        }
        let request: Value = serde_json::from_slice(&buffer[..len]).expect("a request is JSON");
        let answer = answer(&request, fd, &mut books.lock().unwrap());
        if answer.is_null() {
            // Says nothing, until the other side hangs up.
            continue;
        }
        if fdpass::send(client.as_fd(), answer.to_string().as_bytes(), None).is_err() {
            return;
        }
    }
}

fn answer(request: &Value, fd: Option<OwnedFd>, books: &mut Books) -> Value {
    let execute = request["execute"].as_str().expect("a request has a name").to_owned();
    let arguments = &request["arguments"];
    let text = |key: &str| arguments[key].as_str().expect("a text").to_owned();
    books.asked.push(execute.clone());
    if let Some(answer) = books.instead.get(&execute) {
        return answer.clone();
    }
    let returned = match execute.as_str() {
        "join" => {
            let (told, container) = (arguments["network"].clone(), arguments["container"].clone());
            let network = books.networks.entry(told["id"].as_str().unwrap().to_owned()).or_default();
            network.told = told;
            network.containers.insert(container["id"].as_str().unwrap().to_owned(), container);
            json!({"attached": network.tap.is_some()})
        }
        "attach" => {
            let tap = Tap::from_owned_fd(fd.expect("a TAP comes with it")).expect("it is a TAP");
            let id = text("network_id");
            books.networks.get_mut(&id).expect("joined before").tap = Some(tap);
            json!({})
        }
        "leave" => {
            let (id, container) = (text("network_id"), text("container_id"));
            books.rules.retain(|(of, _)| *of != container);
            let left = books.networks.get_mut(&id).map_or(0, |network| {
                network.containers.remove(&container);
                network.containers.len()
            });
            if left == 0 {
                books.networks.remove(&id);
            }
            json!({"containers": left})
        }
        "publish" => {
            // For a container on several networks it is asked twice, and means the same.
            let container = text("container_id");
            books.rules.retain(|(of, _)| *of != container);
            books.rules.push((container, arguments["ports"].clone()));
            json!({"ids": [1]})
        }
        other => return json!({"error": format!("unknown request {other}")}),
    };
    Value::Object(Map::from_iter([("return".to_owned(), returned)]))
}
