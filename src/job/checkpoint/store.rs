//! The folder of a job's checkpoints: `NUMBER.sections` holds sections, each an Arrow IPC file, one behind the other; `NUMBER.manifest`
//! names those of one checkpoint, of this file and of older ones. Files never change. Everything in here can be deleted: it only
//! costs recomputation.

use super::manifest::{Manifest, Named, Place};
use crate::codec::xxh64;
use crate::engine::EngineState;
use crate::env::{DiskFile, Env, OpenMode, create_dir_durably, replace_file};
use crate::error::{Error, Result};
use crate::state::ipc::{self, Stretch};
use crate::state::section::Section;
use crate::types::check_topic_name;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SECTIONS: &str = "sections";
const MANIFEST: &str = "manifest";
const BUFFER_BYTES: usize = 1 << 20;

/// A job's folder of checkpoints.
#[derive(Clone)]
pub(super) struct Store {
    env: Env,
    dir: PathBuf,
}

/// The bytes of sections by name and version, as the last checkpoint of this process wrote them.
pub(super) type Written = BTreeMap<String, (u64, Place)>;

/// Where a section was written as it is.
pub(super) fn written_as<'a>(written: &'a Written, section: &Section) -> Option<&'a Place> {
    written.get(&section.name).filter(|(version, _)| Some(*version) == section.version).map(|(_, place)| place)
}

/// Sections that may be shared: a file of which less than half is in use is not kept for what is left of it.
pub(super) fn shareable(written: &Written, lengths: &BTreeMap<u64, u64>) -> BTreeSet<u64> {
    let mut used: BTreeMap<u64, u64> = BTreeMap::new();
    for (_, place) in written.values() {
        *used.entry(place.file).or_default() += place.bytes;
    }
    let is_worth_it = |(file, bytes): &(u64, u64)| lengths.get(file).is_some_and(|all| bytes * 2 >= *all);
    used.into_iter().filter(is_worth_it).map(|(file, _)| file).collect()
}

/// Writes a file front to back.
struct Output {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Bytes in the file.
    at: u64,
    crc: crc32fast::Hasher,
}

impl Output {
    fn end(&self) -> u64 {
        self.at + self.buffer.len() as u64
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.crc.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(self.at, &self.buffer)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Store {
    /// That of a job below a data folder. Names that could be something else on a file system are replaced by their hash.
    pub fn new(env: &Env, data: &Path, job: &str) -> Store {
        let folder = match check_topic_name(job) {
            Ok(()) => job.to_owned(),
            Err(_) => format!("job-{:016x}", xxh64(job.as_bytes(), 0)),
        };
        Store { env: env.clone(), dir: data.join("checkpoints").join(folder) }
    }

    fn path(&self, number: u64, ending: &str) -> PathBuf {
        self.dir.join(format!("{number:010}.{ending}"))
    }

    /// Numbers of all files, whatever they are.
    fn numbers(&self) -> Result<Vec<(u64, String)>> {
        let listed = match self.env.disk.list(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(|cause| Error::io("listing", &self.dir, cause))?,
        };
        let number = |name: &str| name.split('.').next().and_then(|digits| digits.parse().ok());
        Ok(listed.into_iter().filter_map(|entry| Some((number(&entry.name)?, entry.name))).collect())
    }

    /// A number that no file has. A folder that cannot be read says so when it is written to.
    pub fn next_number(&self) -> u64 {
        let numbers = self.numbers().unwrap_or_default().into_iter().map(|(number, _)| number);
        numbers.max().map_or(1, |last| last + 1)
    }

    /// Writes a checkpoint durably. Sections that are in `shared` in the same version are not written again.
    pub fn write(&self, mut manifest: Manifest, state: &EngineState, shared: &Written) -> Result<(Manifest, Written)> {
        let disk = &*self.env.disk;
        create_dir_durably(disk, &self.dir).map_err(|cause| Error::io("creating", &self.dir, cause))?;
        let path = self.path(manifest.number, SECTIONS);
        let failed = |cause| Error::io("writing", &path, cause);
        let file = disk.open(&path, OpenMode::CreateNew).map_err(failed)?;
        let mut out = Output { file, buffer: Vec::new(), at: 0, crc: crc32fast::Hasher::new() };
        let mut written = Written::new();
        for section in &state.sections {
            let place = match written_as(shared, section) {
                Some(place) => place.clone(),
                None => {
                    let at = out.end();
                    out.crc = crc32fast::Hasher::new();
                    ipc::write(section, &mut out)?;
                    let (bytes, crc) = (out.end() - at, out.crc.clone().finalize());
                    Place { name: section.name.clone(), file: manifest.number, at, bytes, crc }
                }
            };
            if let Some(version) = section.version {
                written.insert(section.name.clone(), (version, place.clone()));
            }
            manifest.sections.push(place);
        }
        io::Write::flush(&mut out).and_then(|()| out.file.sync_data()).map_err(failed)?;
        let path = self.path(manifest.number, MANIFEST);
        // The directory is synced behind it: both names are durable.
        replace_file(disk, &path, &manifest.encode()?).map_err(|cause| Error::io("writing", &path, cause))?;
        Ok((manifest, written))
    }

    /// A checkpoint, every byte of which is as it was written. Its rows are read when somebody asks for them.
    pub fn read(&self, number: u64, named: &Named) -> Result<(Manifest, EngineState)> {
        let bytes = self.read_at(self.path(number, MANIFEST), 0, named.bytes)?;
        if crc32fast::hash(&bytes) != named.crc {
            return Err(Error::damage("its manifest is not the one that was written"));
        }
        let manifest = Manifest::decode(&bytes)?;
        let mut files: BTreeMap<u64, Arc<dyn DiskFile>> = BTreeMap::new();
        let sections = manifest.sections.iter().map(|place| {
            let path = self.path(place.file, SECTIONS);
            let file = match files.entry(place.file) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let opened = self.env.disk.open(&path, OpenMode::Read);
                    entry.insert(opened.map_err(|cause| Error::io("reading", &path, cause))?)
                }
            };
            match crc_of(&**file, &path, place)? == place.crc {
                true => ipc::open(&place.name, Stretch::new(Arc::clone(file), place.at, place.bytes)),
                false => Err(Error::damage(format!("section {} of it is damaged", place.name))),
            }
        });
        let sections = sections.collect::<Result<_>>()?;
        Ok((manifest, EngineState { sections }))
    }

    /// The manifest alone.
    pub fn read_manifest(&self, number: u64, named: &Named) -> Result<Manifest> {
        Manifest::decode(&self.read_at(self.path(number, MANIFEST), 0, named.bytes)?)
    }

    fn read_at(&self, path: PathBuf, at: u64, len: u64) -> Result<Vec<u8>> {
        let failed = |cause| Error::io("reading", &path, cause);
        let file = self.env.disk.open(&path, OpenMode::Read).map_err(failed)?;
        let there = file.len().map_err(failed)?;
        let len = usize::try_from(len).ok().filter(|_| at.checked_add(len).is_some_and(|end| end <= there));
        let len = len.ok_or_else(|| Error::damage(format!("{} is cut short", path.display())))?;
        let mut bytes = vec![0; len];
        file.read_exact_at(at, &mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Removes every file that none of these checkpoints needs. What cannot be removed stays.
    pub fn keep(&self, kept: &[Manifest]) -> Result<()> {
        let mut needed: BTreeSet<String> = BTreeSet::new();
        for manifest in kept {
            needed.insert(format!("{:010}.{MANIFEST}", manifest.number));
            needed.extend(manifest.sections.iter().map(|place| format!("{:010}.{SECTIONS}", place.file)));
        }
        for (_, name) in self.numbers()?.into_iter().filter(|(_, name)| !needed.contains(name)) {
            let path = self.dir.join(name);
            self.env.disk.remove_file(&path).map_err(|cause| Error::io("removing", &path, cause))?;
        }
        Ok(())
    }

    /// Removes everything. What cannot be removed is in nobody's way.
    pub fn remove(&self) {
        self.env.disk.remove_dir_all(&self.dir).ok();
    }
}

/// Checksum of a section's bytes.
fn crc_of(file: &dyn DiskFile, path: &Path, place: &Place) -> Result<u32> {
    let failed = |cause| Error::io("reading", path, cause);
    if place.at.checked_add(place.bytes).is_none_or(|end| file.len().is_ok_and(|there| end > there)) {
        return Err(Error::damage(format!("{} is cut short", path.display())));
    }
    let (mut crc, mut block, mut done) = (crc32fast::Hasher::new(), vec![0; BUFFER_BYTES], 0);
    while done < place.bytes {
        let len = usize::try_from(place.bytes - done).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        file.read_exact_at(place.at + done, &mut block[..len]).map_err(failed)?;
        crc.update(&block[..len]);
        done += len as u64;
    }
    Ok(crc.finalize())
}

/// Length of the file of sections that a checkpoint wrote.
pub(super) fn own_bytes(manifest: &Manifest) -> u64 {
    let own = manifest.sections.iter().filter(|place| place.file == manifest.number);
    own.map(|place| place.at + place.bytes).max().unwrap_or(0)
}
