//! The system bus: call a method and wait for the answer, wait for a signal. One thread, no event loop.
//!
//! zbus has the format of values; its connections want an asynchronous runtime and threads, which a program that lives
//! for a few milliseconds and asks two questions does not. What is here is the other half of D-Bus: a UNIX socket, an
//! authentication in one line (the peer learns our user from the kernel), and messages of a header and a body.
//! Authentication, the greeting and the first call are sent together, so that they cost one round trip.
//!
//! Only a bus whose socket exists is connected to: most machines that run containers have none to talk about, and
//! `DBUS_SYSTEM_BUS_ADDRESS` set to nothing means that there is none.
//!
//! Source: D-Bus Specification 0.43, "Message Protocol", "Authentication Protocol", "Server Addresses".

use crate::error::{Error, Result};
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use slipway_host::environment;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::Duration;
use zbus::OwnedVariant;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{BE, DynamicType, LE, Signature, Type, Variant, to_bytes};

/// Where the bus is when the environment says nothing.
const USUAL: &str = "unix:path=/run/dbus/system_bus_socket";
const VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// How long an answer may take: what D-Bus libraries usually wait.
const PATIENCE: Duration = Duration::from_secs(25);

/// The longest message that is read. The specification allows 128 MiB; firewalld's settings are a few KiB.
const LONGEST: usize = 16 << 20;

/// The part of the header that has a fixed length.
const FIXED: usize = 16;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const SIGNAL: u8 = 4;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Byte order, type, flags, version, length of the body, serial number, fields.
type Header<'a> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Variant<'a>)>);
/// The same to be sent.
type Outgoing<'a> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Text<'a>)>);

/// A field that is some kind of string: an object path, a name, a signature. The signature of a body has no parentheses
/// around it, which zbus's own type for signatures would add.
#[derive(Debug, Type)]
#[zbus(signature = "v")]
struct Text<'a>(Signature, &'a str);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // By this name zbus knows a variant.
        let mut variant = serializer.serialize_struct("Variant", 2)?;
        variant.serialize_field("signature", &self.0)?;
        variant.serialize_field("value", self.1)?;
        variant.end()
    }
}

/// Which method of whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
    pub(super) member: &'static str,
}

/// The bus's own methods.
const fn of_bus(member: &'static str) -> Method {
    let name = "org.freedesktop.DBus";
    Method { destination: name, path: "/org/freedesktop/DBus", interface: name, member }
}

/// A connection to the system bus.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// What has to go out before the first call.
    greeting: Vec<u8>,
}

/// A message that came in.
struct Message {
    kind: u8,
    reply_to: Option<u32>,
    member: Option<String>,
    error: Option<String>,
    body: Data<'static, 'static>,
}

impl Bus {
    /// Connects to the system bus; `None` when there is none.
    ///
    /// # Errors
    /// When there is a socket and nobody answers.
    pub(super) fn system() -> Result<Option<Self>> {
        let address = environment::variable(VARIABLE);
        let address = address.as_deref().unwrap_or_else(|| OsStr::new(USUAL));
        match connect(&address.to_string_lossy()) {
            Ok(None) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Ok(Some(stream)) => Self::new(stream).map(Some),
            Err(error) => Err(failed(error)),
        }
    }

    fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        // The user's number in decimal digits, those in hexadecimal.
        let user: String = geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        let mut bus = Self { stream, serial: 0, greeting: Vec::new() };
        let mut greeting = format!("\0AUTH EXTERNAL {user}\r\nBEGIN\r\n").into_bytes();
        greeting.extend(bus.message(of_bus("Hello"), &())?);
        bus.greeting = greeting;
        Ok(bus)
    }

    /// Whether somebody has that name.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub(super) fn has_owner(&mut self, name: &str) -> Result<bool> {
        self.call(of_bus("NameHasOwner"), &name)
    }

    /// Calls a method and waits for the answer's only value.
    ///
    /// # Errors
    /// The other's refusal, an answer of another type, and those of the socket.
    pub(super) fn call<B, R>(&mut self, method: Method, body: &B) -> Result<R>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        value(&self.answer(method, body)?.body)
    }

    /// Calls a method and waits until it is done; whatever it answers.
    ///
    /// # Errors
    /// The other's refusal, and those of the socket.
    pub(super) fn tell<B: Serialize + DynamicType>(&mut self, method: Method, body: &B) -> Result<()> {
        self.answer(method, body).map(drop)
    }

    fn answer<B: Serialize + DynamicType>(&mut self, method: Method, body: &B) -> Result<Message> {
        let message = self.message(method, body)?;
        let serial = self.serial;
        self.send(&message)?;
        loop {
            let answer = self.receive()?;
            if answer.reply_to != Some(serial) {
                continue;
            }
            return if answer.kind == METHOD_RETURN { Ok(answer) } else { Err(refusal(&answer)) };
        }
    }

    /// Asks for a signal of whoever has that name.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub(super) fn subscribe(&mut self, sender: &str, interface: &str, member: &str) -> Result<()> {
        let rule = format!("type='signal',sender='{sender}',interface='{interface}',member='{member}'");
        self.tell(of_bus("AddMatch"), &rule)
    }

    /// Waits, for as long as it takes, for a signal of that name.
    ///
    /// # Errors
    /// When the bus goes away.
    pub(super) fn wait_for(&mut self, member: &str) -> Result<()> {
        self.stream.set_read_timeout(None).map_err(failed)?;
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL && message.member.as_deref() == Some(member) {
                return self.stream.set_read_timeout(Some(PATIENCE)).map_err(failed);
            }
        }
    }

    /// The bytes of a call, with a serial number of its own.
    fn message<B: Serialize + DynamicType>(&mut self, method: Method, body: &B) -> Result<Vec<u8>> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let native = if cfg!(target_endian = "big") { BE } else { LE };
        let content = to_bytes(Context::new(native, 0), body).map_err(failed)?;
        let signature = body.signature().to_string_no_parens();
        let name = |field: u8, text: &'static str| (field, Text(Signature::Str, text));
        let mut fields = vec![
            (PATH, Text(Signature::ObjectPath, method.path)),
            name(DESTINATION, method.destination),
            name(INTERFACE, method.interface),
            name(MEMBER, method.member),
        ];
        if !signature.is_empty() {
            fields.push((SIGNATURE, Text(Signature::Signature, &signature)));
        }
        let length = u32::try_from(content.len()).map_err(failed)?;
        let order = if cfg!(target_endian = "big") { b'B' } else { b'l' };
        let header: Outgoing<'_> = (order, METHOD_CALL, 0, 1, length, self.serial, fields);
        let mut bytes = to_bytes(Context::new(native, 0), &header).map_err(failed)?.to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&content);
        Ok(bytes)
    }

    fn send(&mut self, message: &[u8]) -> Result<()> {
        if self.greeting.is_empty() {
            return self.stream.write_all(message).map_err(failed);
        }
        let mut bytes = std::mem::take(&mut self.greeting);
        bytes.extend_from_slice(message);
        self.stream.write_all(&bytes).map_err(failed)?;
        // "OK <the server's identity>\r\n", and messages right behind it.
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).map_err(failed)?;
            line.extend(byte);
            if line.len() > 512 {
                break;
            }
        }
        if line.starts_with(b"OK ") {
            return Ok(());
        }
        Err(failed(format!("the bus does not let us in: {}", String::from_utf8_lossy(&line).trim())))
    }

    fn receive(&mut self) -> Result<Message> {
        let mut bytes = vec![0; FIXED];
        self.stream.read_exact(&mut bytes).map_err(failed)?;
        let length = length(&bytes).ok_or_else(|| failed("a message that makes no sense"))?;
        bytes.resize(length, 0);
        self.stream.read_exact(bytes.get_mut(FIXED..).unwrap_or_default()).map_err(failed)?;
        Message::parse(bytes)
    }
}

/// The length of a message, from the part of its header that has a fixed length.
fn length(fixed: &[u8]) -> Option<usize> {
    let order = *fixed.first()?;
    let number = |at: usize| {
        let bytes = *fixed.get(at..)?.first_chunk::<4>()?;
        let number = if order == b'B' { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(number).ok().filter(|number| *number <= LONGEST)
    };
    let (body, fields) = (number(4)?, number(12)?);
    Some((FIXED + fields).next_multiple_of(8) + body).filter(|length| *length <= LONGEST)
}

impl Message {
    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let order = if bytes.first() == Some(&b'B') { BE } else { LE };
        let data = Data::new(bytes, Context::new(order, 0));
        let ((_, kind, _, _, body, _, fields), _): (Header<'_>, usize) =
            data.deserialize().map_err(failed)?;
        let mut message = Self {
            kind,
            reply_to: None,
            member: None,
            error: None,
            body: Data::new(Vec::new(), data.context()),
        };
        for (field, value) in fields {
            match (field, value) {
                (REPLY_SERIAL, Variant::U32(serial)) => message.reply_to = Some(serial),
                (MEMBER, Variant::Str(text)) => message.member = Some(text.as_str().to_owned()),
                (ERROR_NAME, Variant::Str(text)) => message.error = Some(text.as_str().to_owned()),
                _ => {}
            }
        }
        let body = usize::try_from(body).map_err(failed)?;
        // The body begins at a multiple of eight, so its values are aligned as at the beginning.
        let begin = data.len().checked_sub(body).ok_or_else(|| failed("a message that makes no sense"))?;
        message.body = Data::new(data.bytes().get(begin..).unwrap_or_default().to_vec(), data.context());
        Ok(message)
    }
}

/// Reads any bytes as what comes out of the bus's socket.
pub(in crate::firewall) fn fuzz(bytes: &[u8]) {
    let length = length(bytes.get(..FIXED).unwrap_or_default());
    assert!(length.is_none_or(|length| (FIXED..=LONGEST).contains(&length)), "it is at least its own header");
    let Ok(message) = Message::parse(bytes.to_vec()) else { return };
    assert!(message.body.len() <= bytes.len(), "nothing is invented");
    let _ = (refusal(&message), value::<bool>(&message.body), value::<Vec<String>>(&message.body));
    let _ = (value::<OwnedVariant>(&message.body), value::<BTreeMap<String, OwnedVariant>>(&message.body));
}

fn value<R: DeserializeOwned + Type>(body: &Data<'static, 'static>) -> Result<R> {
    let (value, _) = body.deserialize().map_err(|error| Error::DbusVariant(error.to_string()))?;
    Ok(value)
}

fn refusal(answer: &Message) -> Error {
    let name = answer.error.as_deref().unwrap_or("an answer that is none");
    match value::<String>(&answer.body) {
        Ok(text) => failed(format!("{name}: {text}")),
        Err(_) => failed(name),
    }
}

fn failed(error: impl Display) -> Error {
    Error::Dbus(error.to_string())
}

/// Connects to the first address of the list that can be used; `None` when there is nothing to connect to.
fn connect(addresses: &str) -> std::io::Result<Option<UnixStream>> {
    let mut result = Ok(None);
    for address in addresses.split(';') {
        let Some(keys) = address.strip_prefix("unix:") else { continue };
        for key in keys.split(',') {
            let opened = match key.split_once('=') {
                Some(("path", path)) => UnixStream::connect(Path::new(path)),
                Some(("abstract", name)) => {
                    SocketAddr::from_abstract_name(name).and_then(|a| UnixStream::connect_addr(&a))
                }
                _ => continue,
            };
            match opened {
                Ok(stream) => return Ok(Some(stream)),
                Err(error) => result = Err(error),
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the other end of a socket would have read and answered.
    fn answer(kind: u8, fields: Vec<(u8, Variant<'_>)>, body: &impl TestBody) -> Vec<u8> {
        let content = to_bytes(Context::new(LE, 0), body).unwrap();
        let length = u32::try_from(content.len()).unwrap();
        let header: Header<'_> = (b'l', kind, 0, 1, length, 7, fields);
        let mut bytes = to_bytes(Context::new(LE, 0), &header).unwrap().to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&content);
        bytes
    }

    trait TestBody: Serialize + DynamicType {}
    impl<T: Serialize + DynamicType> TestBody for T {}

    #[test]
    fn a_call_is_answered_or_refused() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut bus = Bus::new(ours).unwrap();
        theirs.write_all(b"OK 0123456789abcdef\r\n").unwrap();
        // The greeting's answer, a signal in between, then the answer, and a refusal of the next.
        theirs.write_all(&answer(METHOD_RETURN, vec![(REPLY_SERIAL, Variant::U32(1))], &":1.7")).unwrap();
        theirs.write_all(&answer(SIGNAL, vec![(MEMBER, Variant::from("Other"))], &())).unwrap();
        theirs.write_all(&answer(METHOD_RETURN, vec![(REPLY_SERIAL, Variant::U32(2))], &true)).unwrap();
        let name = Variant::from("org.example.No");
        let fields = vec![(REPLY_SERIAL, Variant::U32(3)), (ERROR_NAME, name)];
        theirs.write_all(&answer(3, fields, &"not today")).unwrap();
        theirs.write_all(&answer(METHOD_RETURN, vec![(REPLY_SERIAL, Variant::U32(4))], &7_u32)).unwrap();
        assert!(bus.has_owner("org.example").unwrap());
        let error = bus.has_owner("org.example").unwrap_err();
        assert_eq!(error.to_string(), "DBus error: org.example.No: not today");
        let error = bus.call::<_, String>(of_bus("GetId"), &()).unwrap_err();
        assert!(error.to_string().starts_with("DBus Variant Error: "), "{error}");
        let mut sent = vec![0; 4096];
        let length = theirs.read(&mut sent).unwrap();
        let sent = String::from_utf8_lossy(&sent[..length]);
        assert!(sent.starts_with("\0AUTH EXTERNAL ") && sent.contains("\r\nBEGIN\r\nl\u{1}"), "{sent:?}");
        for word in ["Hello", "NameHasOwner", "org.example"] {
            assert!(sent.contains(word), "{word}");
        }
    }

    #[test]
    fn hostile_messages_are_refused() {
        assert_eq!(length(&[b'l'; 3]), None);
        assert_eq!(length(&[255; 16]), None);
        for fill in [0, 1, b'l', b'B', 255] {
            for length in 16..96 {
                let mut bytes = vec![fill; length];
                let _ = Message::parse(bytes.clone());
                bytes[0] = b'l';
                bytes[4..8].copy_from_slice(&[8, 0, 0, 0]);
                bytes[12..16].copy_from_slice(&[40, 0, 0, 0]);
                let _ = Message::parse(bytes);
            }
        }
    }

    #[test]
    fn no_address_is_no_bus() {
        assert!(connect("").unwrap().is_none());
        assert!(connect("tcp:host=localhost").unwrap().is_none());
        let error = connect("unix:path=/nonexistent/bus,guid=00").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
