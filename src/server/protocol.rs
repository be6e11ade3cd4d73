//! What goes over the socket: frames of a kind (1 byte), a length (u32, little-endian) and so many bytes.
//!
//! The client says [`Kind::Request`] first. It sends [`Kind::Input`] once for each [`Kind::Want`], empty at the end of stdin, and may say
//! [`Kind::Cancel`] at any time. The host answers with output as it comes and, last, with [`Kind::Exit`].

use crate::codec::{CodecError, Reader, put_block, put_varint};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// Bytes of one frame of input or output at most.
pub(super) const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Bytes of a request at most.
pub(super) const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Both sides are of one build in practice; this says so.
const VERSION: &str = concat!("kappa ", env!("CARGO_PKG_VERSION"), " protocol 1");

/// Arguments of a command at most.
const ARGUMENTS_MAX: u64 = 16 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Client: a [`Request`].
    Request = 1,
    /// Client: bytes of stdin; none at its end.
    Input = 2,
    /// Client: the user wants it to stop.
    Cancel = 3,
    /// Host: bytes for stdout.
    Out = 4,
    /// Host: bytes for stderr.
    Talk = 5,
    /// Host: stdin is wanted.
    Want = 6,
    /// Host: the exit code, one byte.
    Exit = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind::{Cancel, Exit, Input, Out, Request, Talk, Want};
        [Request, Input, Cancel, Out, Talk, Want, Exit].into_iter().find(|kind| *kind as u8 == byte)
    }

    fn bytes_max(self) -> usize {
        match self {
            Kind::Request => REQUEST_BYTES_MAX,
            Kind::Input | Kind::Out | Kind::Talk => CHUNK_BYTES_MAX,
            Kind::Exit => 1,
            Kind::Cancel | Kind::Want => 0,
        }
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Writes one frame.
pub(super) fn write_frame(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > kind.bytes_max() {
        return Err(invalid(format!("{} bytes are too many for one message", bytes.len())));
    }
    let mut frame = Vec::with_capacity(5 + bytes.len());
    frame.push(kind as u8);
    frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    frame.extend_from_slice(bytes);
    to.write_all(&frame)
}

/// Reads one frame; nothing is kept for a length that its kind does not have.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [byte, length @ ..] = head;
    let kind = Kind::of(byte).ok_or_else(|| invalid(format!("unknown message {byte}")))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > kind.bytes_max() {
        return Err(invalid(format!("a message of {length} bytes, at most {} are allowed", kind.bytes_max())));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok((kind, bytes))
}

/// A command that another process was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its working folder, absolute.
    pub folder: PathBuf,
    /// Its arguments, the program's name first.
    pub arguments: Vec<String>,
}

impl Request {
    /// As it is sent; `None` for paths and arguments that are no UTF-8.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        put_block(&mut bytes, VERSION.as_bytes());
        put_block(&mut bytes, self.folder.to_str()?.as_bytes());
        put_varint(&mut bytes, self.arguments.len() as u64);
        self.arguments.iter().for_each(|argument| put_block(&mut bytes, argument.as_bytes()));
        Some(bytes)
    }

    /// What was sent, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Request, String> {
        fn text(reader: &mut Reader<'_>, what: &'static str) -> Result<String, String> {
            let bytes = reader.block(what).map_err(|e: CodecError| e.to_string())?;
            String::from_utf8(bytes.to_vec()).map_err(|_| format!("{what} is no UTF-8"))
        }
        let reader = &mut Reader::new(bytes);
        let version = text(reader, "version")?;
        if version != VERSION {
            return Err(format!("it runs {VERSION}, and this is {version}: stop it, or use its version"));
        }
        let folder = PathBuf::from(text(reader, "folder")?);
        if !folder.is_absolute() {
            return Err("the folder is not absolute".to_owned());
        }
        let count = reader.varint("number of arguments").map_err(|e| e.to_string())?;
        if count > ARGUMENTS_MAX {
            return Err(format!("{count} arguments, at most {ARGUMENTS_MAX} are allowed"));
        }
        let arguments = (0..count).map(|_| text(reader, "argument")).collect::<Result<_, _>>()?;
        if reader.left() > 0 {
            return Err("bytes behind the last argument".to_owned());
        }
        Ok(Request { folder, arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_are_read_as_they_were_sent(folder in "/[a-z/ ]{0,20}", arguments in prop::collection::vec(".{0,9}", 0..9)) {
            let request = Request { folder: folder.into(), arguments };
            let mut sent = Vec::new();
            write_frame(&mut sent, Kind::Request, &request.encode().expect("UTF-8")).expect("fits");
            let (kind, bytes) = read_frame(&mut &sent[..]).expect("whole");
            prop_assert_eq!((kind, Request::decode(&bytes)), (Kind::Request, Ok(request)));
            for cut in 0..bytes.len() {
                prop_assert!(Request::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((kind, read)) = read_frame(&mut &bytes[..]) {
                prop_assert!(read.len() <= kind.bytes_max());
            }
            let _ = Request::decode(&bytes);
        }
    }

    #[test]
    fn lengths_are_bounded_by_kind() {
        for (kind, most) in [(Kind::Request, REQUEST_BYTES_MAX), (Kind::Input, CHUNK_BYTES_MAX), (Kind::Cancel, 0)] {
            let mut head = vec![kind as u8];
            head.extend_from_slice(&(most as u32 + 1).to_le_bytes());
            let refused = read_frame(&mut head.chain(io::repeat(0)));
            assert_eq!(refused.expect_err("too long").kind(), io::ErrorKind::InvalidData);
        }
        assert!(write_frame(&mut Vec::new(), Kind::Exit, &[1, 2]).is_err());
    }

    #[test]
    fn another_version_is_told_which_one_runs() {
        let mut bytes = Vec::new();
        put_block(&mut bytes, b"kappa 0.0.9 protocol 1");
        let why = Request::decode(&bytes).expect_err("another version");
        assert!(why.contains(VERSION) && why.contains("kappa 0.0.9"), "{why}");
    }
}
