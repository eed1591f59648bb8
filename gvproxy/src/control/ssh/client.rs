//! A client of SSH 2: bytes of the server in, bytes for it out. Pure but for randomness.
//!
//! ```text
//!   first lines ─▶ keys (kex.rs) ─▶ login by a public key ─▶ streams (channels.rs)
//!                     ▲                                          │
//!                     └───────── new keys now and then ──────────┘
//! ```
//! Sources: RFC 4253 (transport), RFC 4252 §7 (public keys). It is logged in with one key, which somebody else signs
//! with ([`super::keeper`]), and asks for streams; everything that a server could want beside is refused in the words
//! that the RFCs have for it. A server that does what no server does ends the connection, and nothing else.

use super::channels::{self, Channels};
use super::cipher::Opener;
use super::kex::{Agreed, Begun, ECDH_REPLY, KEXINIT, NEWKEYS, NoKeys, Versions};
use super::packet::{Broken, Incoming, Outgoing};
use super::wire::{Malformed, Put as _, Reader};

/// Our first line.
const VERSION: &[u8] = b"SSH-2.0-slipway";
/// Bytes of a server before its first line (RFC 4253 §4.2 lets it say others before).
const PROLOGUE: usize = 8 << 10;

const DISCONNECT: u8 = 1;
const IGNORE: u8 = 2;
const UNIMPLEMENTED: u8 = 3;
const DEBUG: u8 = 4;
const SERVICE_REQUEST: u8 = 5;
const SERVICE_ACCEPT: u8 = 6;
const EXT_INFO: u8 = 7;
const USERAUTH_REQUEST: u8 = 50;
const USERAUTH_FAILURE: u8 = 51;
const USERAUTH_SUCCESS: u8 = 52;
const USERAUTH_BANNER: u8 = 53;
const GLOBAL_REQUEST: u8 = 80;
const REQUEST_SUCCESS: u8 = 81;
const REQUEST_FAILURE: u8 = 82;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// What came are no packets.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// There are no keys.
    #[error(transparent)]
    NoKeys(#[from] NoKeys),
    /// A message is not what it should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It speaks something else.
    #[error("there is no SSH server: {0}")]
    NoServer(String),
    /// It says so.
    #[error("the server hangs up: {0}")]
    Disconnected(String),
    /// The key is not let in.
    #[error("the server does not let {0} in with this key")]
    Refused(String),
    /// A message that has no place here.
    #[error("the server says what it may not say now (message {0})")]
    Disorder(u8),
}

/// The public half of a key, and what signatures by it are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Public {
    /// The name of the signatures' algorithm.
    pub(crate) algorithm: String,
    /// The key as SSH writes it.
    pub(crate) blob: Vec<u8>,
}

/// What has come of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// Nothing that anybody waits for.
    Nothing,
    /// This is to be signed.
    Sign(Vec<u8>),
    /// We are in.
    LoggedIn,
    /// Something about this stream.
    Channel(channels::Id),
}

/// How far the login is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    /// There are no keys yet.
    Keys,
    /// The service was asked for.
    Service,
    /// The request is signed somewhere, or the server looks at it.
    Asked,
    In,
}

/// How far an exchange of keys is.
#[derive(Debug)]
enum Exchange {
    None,
    Begun(Begun),
    Agreed(Box<Agreed>),
    /// All that lacks is that the server changes, too.
    Made(Opener),
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    into: Incoming,
    inner: Inner,
}

#[derive(Debug)]
struct Inner {
    out: Outgoing,
    versions: Versions,
    exchange: Exchange,
    /// The name of the session, once there is one.
    session: Option<Vec<u8>>,
    strict: bool,
    /// Something was said before the first exchange began, which a strict one does not allow.
    chatted: bool,
    user: String,
    public: Public,
    login: Login,
    /// Bytes of lines before the server's first.
    prologue: usize,
    channels: Channels,
}

/// What a message has led to, beside what it did here.
enum Outcome {
    Happened(Happened),
    /// What comes from here on is by other keys.
    Change(Opener),
}

const NOTHING: Outcome = Outcome::Happened(Happened::Nothing);

impl Client {
    /// One that wants to be `user`, by the key whose public half this is. `cookie`: random.
    pub(super) fn new(user: &str, public: Public, cookie: [u8; 16]) -> Self {
        let mut out = Outgoing::new();
        out.raw(VERSION);
        out.raw(b"\r\n");
        let mut inner = Inner {
            out,
            versions: Versions { ours: VERSION.to_vec(), theirs: Vec::new() },
            exchange: Exchange::None,
            session: None,
            strict: false,
            chatted: false,
            user: user.to_owned(),
            public,
            login: Login::Keys,
            prologue: 0,
            channels: Channels::default(),
        };
        inner.begin(cookie);
        Self { into: Incoming::new(), inner }
    }

    /// Where bytes of the server are to be put.
    pub(super) fn incoming(&mut self) -> &mut Vec<u8> {
        self.into.buffer()
    }

    /// Bytes for the server.
    pub(super) const fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.inner.out
    }

    /// The streams, and what they write to.
    pub(super) const fn channels(&mut self) -> (&mut Channels, &mut Outgoing) {
        (&mut self.inner.channels, &mut self.inner.out)
    }

    /// Does as the next message says. `None`: none has come whole. `cookie` gives random bytes.
    pub(super) fn advance(&mut self, cookie: impl FnOnce() -> [u8; 16]) -> Result<Option<Happened>, Fault> {
        if self.inner.versions.theirs.is_empty() && !self.first_line()? {
            return Ok(None);
        }
        if self.inner.out.is_worn() {
            return Err(Broken::Worn.into());
        }
        let Some(payload) = self.into.next()? else { return Ok(None) };
        match self.inner.heed(payload, cookie)? {
            Outcome::Happened(Happened::Nothing) if is_unknown(payload) => {
                let last = self.into.last();
                self.inner.out.send(|packet| {
                    packet.push(UNIMPLEMENTED);
                    packet.number(last);
                });
                Ok(Some(Happened::Nothing))
            }
            Outcome::Happened(happened) => Ok(Some(happened)),
            Outcome::Change(opener) => {
                self.into.change(opener, self.inner.strict);
                Ok(Some(Happened::Nothing))
            }
        }
    }

    /// The signature that was asked for.
    pub(super) fn signed(&mut self, signature: &[u8]) {
        let Inner { out, user, public, .. } = &mut self.inner;
        out.send(|packet| {
            request(packet, user, public);
            packet.string(signature);
        });
    }

    /// Asks for an answer, whatever it is.
    pub(super) fn ask(&mut self) {
        self.inner.out.send(|packet| {
            packet.push(GLOBAL_REQUEST);
            packet.string(b"alive@gvproxy");
            packet.push(1);
        });
    }

    /// Reads the server's first line, and passes over those before it. Whether it is there.
    fn first_line(&mut self) -> Result<bool, Fault> {
        loop {
            let rest = self.into.rest();
            let shown = |line: &[u8]| {
                let start = line.get(..line.len().min(60)).unwrap_or_default();
                format!("{:?}", String::from_utf8_lossy(start))
            };
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return if rest.len() < PROLOGUE { Ok(false) } else { Err(Fault::NoServer(shown(rest))) };
            };
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
            self.into.pass(end + 1);
            if line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-") {
                self.inner.versions.theirs = line;
                return Ok(true);
            }
            self.inner.prologue += end + 1;
            if line.starts_with(b"SSH-") || self.inner.prologue > PROLOGUE {
                return Err(Fault::NoServer(shown(&line)));
            }
        }
    }
}

/// RFC 4252 §7: everything of the request but the signature.
fn request(packet: &mut Vec<u8>, user: &str, public: &Public) {
    packet.push(USERAUTH_REQUEST);
    packet.string(user.as_bytes());
    packet.string(b"ssh-connection");
    packet.string(b"publickey");
    packet.push(1);
    packet.string(public.algorithm.as_bytes());
    packet.string(&public.blob);
}

/// Whether nobody here knows what this message is for.
fn is_unknown(payload: &[u8]) -> bool {
    const KNOWN: [u8; 14] = [
        IGNORE,
        UNIMPLEMENTED,
        DEBUG,
        SERVICE_ACCEPT,
        EXT_INFO,
        KEXINIT,
        NEWKEYS,
        ECDH_REPLY,
        USERAUTH_SUCCESS,
        USERAUTH_FAILURE,
        USERAUTH_BANNER,
        GLOBAL_REQUEST,
        REQUEST_SUCCESS,
        REQUEST_FAILURE,
    ];
    payload.first().is_some_and(|message| !KNOWN.contains(message) && !channels::MESSAGES.contains(message))
}

impl Inner {
    /// Begins an exchange of keys.
    fn begin(&mut self, cookie: [u8; 16]) {
        let begun = Begun::new(cookie, self.session.is_none());
        self.out.send_now(|packet| packet.extend_from_slice(begun.message()));
        self.out.hold();
        self.exchange = Exchange::Begun(begun);
    }

    fn heed(&mut self, payload: &[u8], cookie: impl FnOnce() -> [u8; 16]) -> Result<Outcome, Fault> {
        let mut reader = Reader::new(payload);
        let message = reader.byte()?;
        if let Exchange::Agreed(agreed) = &mut self.exchange
            && core::mem::take(&mut agreed.passes_next)
        {
            return Ok(NOTHING);
        }
        match message {
            DISCONNECT => {
                reader.number()?;
                return Err(Fault::Disconnected(reader.text()?));
            }
            KEXINIT | ECDH_REPLY | NEWKEYS => return self.exchange(message, payload, cookie),
            // OpenSSH, PROTOCOL §1.9: nothing else during a first exchange that is strict; otherwise next to nothing.
            IGNORE | DEBUG if self.login == Login::Keys && !self.strict => {
                self.chatted = true;
                return Ok(NOTHING);
            }
            _ if self.login == Login::Keys => return Err(Fault::Disorder(message)),
            _ => {}
        }
        match (message, self.login) {
            (SERVICE_ACCEPT, Login::Service) => Ok(Outcome::Happened(self.ask_in())),
            (USERAUTH_BANNER, Login::Service | Login::Asked) => Ok(NOTHING),
            (USERAUTH_FAILURE, Login::Asked) => Err(Fault::Refused(self.user.clone())),
            (USERAUTH_SUCCESS, Login::Asked) => {
                self.login = Login::In;
                Ok(Outcome::Happened(Happened::LoggedIn))
            }
            (GLOBAL_REQUEST, Login::In) => {
                reader.string()?;
                if reader.truth()? {
                    self.out.send(|packet| packet.push(REQUEST_FAILURE));
                }
                Ok(NOTHING)
            }
            (message, Login::In) if channels::MESSAGES.contains(&message) => {
                let about = self.channels.heed(payload, &mut self.out)?;
                Ok(Outcome::Happened(about.map_or(Happened::Nothing, Happened::Channel)))
            }
            (IGNORE | DEBUG | UNIMPLEMENTED | EXT_INFO, _)
            | (REQUEST_SUCCESS | REQUEST_FAILURE, Login::In) => Ok(NOTHING),
            // It is answered by whoever knows its number.
            _ if is_unknown(payload) => Ok(NOTHING),
            (message, _) => Err(Fault::Disorder(message)),
        }
    }

    /// What is to be signed, and nobody else can use: it names the session.
    fn ask_in(&mut self) -> Happened {
        self.login = Login::Asked;
        let mut signed = Vec::new();
        signed.string(self.session.as_deref().unwrap_or_default());
        request(&mut signed, &self.user, &self.public);
        Happened::Sign(signed)
    }

    fn exchange(
        &mut self,
        message: u8,
        payload: &[u8],
        cookie: impl FnOnce() -> [u8; 16],
    ) -> Result<Outcome, Fault> {
        if message == KEXINIT && matches!(self.exchange, Exchange::None) {
            self.begin(cookie());
        }
        match (message, core::mem::replace(&mut self.exchange, Exchange::None)) {
            (KEXINIT, Exchange::Begun(begun)) => {
                let agreed = begun.agree(payload)?;
                if self.session.is_none() {
                    self.strict = agreed.strict;
                    if self.strict && self.chatted {
                        return Err(Fault::Disorder(message));
                    }
                }
                self.out.send_now(|packet| agreed.write(packet));
                self.exchange = Exchange::Agreed(Box::new(agreed));
                Ok(NOTHING)
            }
            (ECDH_REPLY, Exchange::Agreed(agreed)) => {
                let keys = agreed.finish(payload, &self.versions, self.session.as_deref())?;
                self.out.send_now(|packet| packet.push(NEWKEYS));
                self.session.get_or_insert(keys.hash);
                self.out.change(keys.sealer, self.strict);
                self.exchange = Exchange::Made(keys.opener);
                Ok(NOTHING)
            }
            (NEWKEYS, Exchange::Made(opener)) => {
                if self.login == Login::Keys {
                    self.login = Login::Service;
                    self.out.send(|packet| {
                        packet.push(SERVICE_REQUEST);
                        packet.string(b"ssh-userauth");
                    });
                }
                Ok(Outcome::Change(opener))
            }
            (message, _) => Err(Fault::Disorder(message)),
        }
    }
}
