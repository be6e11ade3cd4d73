//! Cuts a stream of bytes into records: lines, or CSV rows whose quoted fields may hold line ends. Chunk borders do not show.

use crate::error::{Error, Result};

/// Largest record in bytes.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// How a text file is cut into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One record a line.
    Lines,
    /// One record a CSV row (quoted fields may hold line ends); the first row is dropped where `header` is set.
    Csv {
        /// First row holds names.
        header: bool,
        /// Quote character; `None`: quotes mean nothing.
        quote: Option<u8>,
    },
}

/// Cuts chunks into records. Lines end with `\n` or `\r\n`; the last one may lack its end.
#[derive(Debug)]
pub struct Framer {
    framing: Framing,
    /// Bytes after the last complete record.
    rest: Vec<u8>,
    /// Bytes of `rest` that have been looked at.
    seen: usize,
    is_quoted: bool,
    consumed: u64,
    consumed_crc: crc32fast::Hasher,
    records: u64,
    header: Option<Vec<u8>>,
}

impl Framer {
    /// A framer at the start of a stream.
    pub fn new(framing: Framing) -> Self {
        let (rest, consumed_crc) = (Vec::new(), crc32fast::Hasher::new());
        Framer { framing, rest, seen: 0, is_quoted: false, consumed: 0, consumed_crc, records: 0, header: None }
    }

    /// A framer that goes on after `consumed` bytes with CRC-32 `crc`, from which `records` records (and a header, where
    /// the framing has one) have been cut.
    pub fn resume(framing: Framing, consumed: u64, crc: u32, records: u64) -> Self {
        let consumed_crc = crc32fast::Hasher::new_with_initial_len(crc, consumed);
        let records = if consumed > 0 { records + 1 } else { 0 };
        Framer { consumed, consumed_crc, records, ..Framer::new(framing) }
    }

    /// CRC-32 of the bytes that [`consumed`](Self::consumed) counts.
    pub fn consumed_crc(&self) -> u32 {
        self.consumed_crc.clone().finalize()
    }

    /// Bytes of the stream up to the end of the last complete record.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Bytes fed that are not a complete record yet.
    pub fn pending(&self) -> usize {
        self.rest.len()
    }

    /// The header row, once it has come.
    pub fn header(&self) -> Option<&[u8]> {
        self.header.as_deref()
    }

    /// Takes a chunk and gives out the records it completes.
    ///
    /// # Errors
    /// `Input` for a record over [`RECORD_BYTES_MAX`], naming its number; and those of `each`.
    pub fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.rest);
        let mut seen = std::mem::take(&mut self.seen);
        buffer.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(end) = self.next_line_end(&buffer, seen) {
            self.emit(&buffer[start..end], &mut each)?;
            self.consumed += (end + 1 - start) as u64;
            start = end + 1;
            seen = start;
        }
        self.consumed_crc.update(&buffer[..start]);
        self.rest = buffer.split_off(start);
        self.seen = self.rest.len();
        self.check_len(self.rest.len())
    }

    /// The stream is over: gives out the last record if its line end is missing. True if there was one.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let rest = std::mem::take(&mut self.rest);
        self.seen = 0;
        if rest.is_empty() {
            return Ok(false);
        }
        self.is_quoted = false;
        self.consumed += rest.len() as u64;
        self.consumed_crc.update(&rest);
        self.emit(&rest, &mut each)?;
        Ok(true)
    }

    /// Index of the first line end at or after `from` that ends a record.
    fn next_line_end(&mut self, buffer: &[u8], from: usize) -> Option<usize> {
        let Framing::Csv { quote: Some(quote), .. } = self.framing else {
            return memchr::memchr(b'\n', &buffer[from..]).map(|at| from + at);
        };
        for at in memchr::memchr2_iter(b'\n', quote, &buffer[from..]) {
            if buffer[from + at] == quote {
                self.is_quoted = !self.is_quoted;
            } else if !self.is_quoted {
                return Some(from + at);
            }
        }
        None
    }

    fn emit(&mut self, line: &[u8], each: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let record = line.strip_suffix(b"\r").unwrap_or(line);
        self.check_len(record.len())?;
        self.records += 1;
        if self.records == 1 && matches!(self.framing, Framing::Csv { header: true, .. }) {
            self.header = Some(record.to_vec());
            return Ok(());
        }
        each(record)
    }

    fn check_len(&self, len: usize) -> Result<()> {
        if len <= RECORD_BYTES_MAX {
            return Ok(());
        }
        let quote = if self.is_quoted { "; a quote was opened and not closed" } else { "" };
        Err(Error::input(format!("record {} is longer than {RECORD_BYTES_MAX} bytes{quote}", self.records + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CSV: Framing = Framing::Csv { header: true, quote: Some(b'"') };

    fn cut(framing: Framing, chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Vec<u8>>, u64) {
        let mut records = Vec::new();
        let mut framer = Framer::new(framing);
        let mut take = |record: &[u8]| {
            records.push(record.to_vec());
            Ok(())
        };
        for chunk in chunks {
            framer.feed(chunk, &mut take).unwrap();
        }
        framer.finish(&mut take).unwrap();
        (records, framer.header().map(<[u8]>::to_vec), framer.consumed())
    }

    #[test]
    fn lines_and_rows() {
        let lines = cut(Framing::Lines, &[b"a\r\n\nb\"c\nlast"]).0;
        assert_eq!(lines, [&b"a"[..], b"", b"b\"c", b"last"]);
        let (rows, header, consumed) = cut(CSV, &[b"h1,h2\n1,\"x\ny\"\"\"\n2,z\n"]);
        assert_eq!(rows, [&b"1,\"x\ny\"\"\""[..], b"2,z"]);
        assert_eq!(header.as_deref(), Some(&b"h1,h2"[..]));
        assert_eq!(consumed, 20);
    }

    #[test]
    fn an_endless_record_is_an_error() {
        let mut framer = Framer::new(Framing::Lines);
        let error = framer.feed(&vec![b'x'; RECORD_BYTES_MAX + 1], |_| Ok(())).unwrap_err();
        assert!(error.message().contains("record 1 is longer"), "{error}");
    }

    proptest! {
        #[test]
        fn chunks_do_not_show(text in "[a\"\r\n,]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            for framing in [Framing::Lines, CSV, Framing::Csv { header: false, quote: None }] {
                let whole = cut(framing, &[bytes]);
                prop_assert_eq!(cut(framing, &chunks), whole.clone());
                prop_assert_eq!(whole.2, bytes.len() as u64);
            }
        }
    }
}
