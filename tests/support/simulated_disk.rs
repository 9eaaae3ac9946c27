//! A disk that remembers what was synced and forgets the rest.
//!
//! Files: data written with sync is durable when the write completes; a write in flight may leave any subset of its
//! sectors; other writes, sizes and names are durable after the sync that covers them, or before, as it happens.
//! Changes of names and sizes reach the disk in order (a journal), data sectors in any.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};
use zkfast::storage::{
    LogFailure,
    disk::{Directory, Flusher},
    segment::{BLOCK_BYTES, LOG_HEADER},
    window::Half,
};

/// A directory as a power cut leaves it.
pub type Image = BTreeMap<String, Vec<u8>>;

/// SplitMix64: small, seeded, good enough.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

#[derive(Clone, Default)]
struct FileState {
    durable: Vec<u8>,
    /// Unsynced sectors by offset: zeros, the header. A later durable write of a sector replaces it.
    unsynced: BTreeMap<usize, Vec<u8>>,
}

impl FileState {
    fn write_unsynced(&mut self, at: usize, data: &[u8]) {
        for (index, sector) in data.chunks(512).enumerate() {
            self.unsynced.insert(at + index * 512, sector.to_vec());
        }
    }

    fn write_durable(&mut self, at: usize, data: &[u8]) {
        for sector in (at..at + data.len()).step_by(512) {
            self.unsynced.remove(&sector);
        }
        put(&mut self.durable, at, data);
    }
}

/// A change that the journal carries.
#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
    Size(usize, u64),
}

struct InFlight {
    file: usize,
    offset: u64,
    half: Half,
    length: usize,
    is_complete: bool,
    outcome: Option<Fault>,
}

#[derive(Clone, Copy)]
enum Fault {
    Error,
    Short,
}

#[derive(Default)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    journal: Vec<Change>,
    flight: Option<InFlight>,
    writes_started: u64,
    fault: Option<(u64, Fault)>,
    is_full: bool,
    names_fail: bool,
}

/// A handle on the disk.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

/// An open file.
#[derive(Clone, Debug)]
pub struct SimulatedFile(usize);

pub struct SimulatedFlusher(Disk);
pub struct SimulatedDirectory(Disk);

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn apply(change: &Change, names: &mut BTreeMap<String, usize>, files: &mut [FileState]) {
    match change {
        Change::Create(name, file) => {
            names.insert(name.clone(), *file);
        }
        Change::Rename(from, to) => {
            let file = names.remove(from).expect("renamed what there is");
            names.insert(to.clone(), file);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
        Change::Size(file, bytes) => files[*file].durable.resize(*bytes as usize, 0),
    }
}

impl State {
    /// The journal is committed: everything in it is durable.
    fn commit(&mut self) {
        for change in std::mem::take(&mut self.journal) {
            apply(&change, &mut self.durable_names, &mut self.files);
        }
    }
}

impl Disk {
    /// A disk with these files on it.
    pub fn new(image: &Image) -> Self {
        let mut state = State::default();
        for (name, bytes) in image {
            state.names.insert(name.clone(), state.files.len());
            state.files.push(FileState { durable: bytes.clone(), unsynced: BTreeMap::new() });
        }
        state.durable_names = state.names.clone();
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn flusher(&self) -> SimulatedFlusher {
        SimulatedFlusher(self.clone())
    }

    pub fn directory(&self) -> SimulatedDirectory {
        SimulatedDirectory(self.clone())
    }

    pub fn remove_prepared(&self) {
        let mut state = self.state();
        state.names.retain(|name, _| !name.starts_with("prepared-"));
        state.durable_names = state.names.clone();
    }

    pub fn fail_write(&self, count: u64, is_short: bool) {
        self.state().fault = Some((count, if is_short { Fault::Short } else { Fault::Error }));
    }

    pub fn writes_started(&self) -> u64 {
        self.state().writes_started
    }

    pub fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    pub fn fail_names(&self) {
        self.state().names_fail = true;
    }

    /// The write in flight reaches the medium.
    pub fn complete(&self) {
        let mut state = self.state();
        let State { files, flight, writes_started, fault, .. } = &mut *state;
        let Some(flight) = flight.as_mut().filter(|flight| !flight.is_complete) else { return };
        flight.is_complete = true;
        flight.outcome = fault.filter(|(count, _)| count == writes_started).map(|(_, fault)| fault);
        if flight.outcome.is_none() {
            let data = flight.half.memory()[..flight.length].to_vec();
            files[flight.file].write_durable(flight.offset as usize, &data);
        }
    }

    /// The files as whoever reads them now sees them, those without a name left out.
    #[allow(dead_code, reason = "not every user of this disk reads while it is written")]
    pub fn contents(&self) -> Image {
        let state = self.state();
        let seen = |file: usize| {
            let mut bytes = state.files[file].durable.clone();
            for (at, data) in &state.files[file].unsynced {
                put(&mut bytes, *at, data);
            }
            for change in &state.journal {
                if let Change::Size(sized, length) = change
                    && *sized == file
                {
                    bytes.resize(*length as usize, 0);
                }
            }
            bytes
        };
        let named = state.names.iter().filter(|(name, _)| !name.starts_with("prepared-"));
        named.map(|(name, file)| (name.clone(), seen(*file))).collect()
    }

    /// Somebody removed this file, durably.
    #[allow(dead_code, reason = "not every user of this disk purges")]
    pub fn forget(&self, name: &str) {
        let mut state = self.state();
        state.commit();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// What a power cut leaves.
    pub fn crash(&self, random: &mut Random) -> Image {
        let state = self.state();
        let mut files = state.files.clone();
        let mut names = state.durable_names.clone();
        // A prefix of the journal; data that was not synced sector by sector.
        for change in &state.journal[..random.below(state.journal.len() as u64 + 1) as usize] {
            apply(change, &mut names, &mut files);
        }
        for file in &mut files {
            for (at, data) in std::mem::take(&mut file.unsynced) {
                scatter(&mut file.durable, at, &data, random);
            }
        }
        if let Some(flight) = state.flight.as_ref().filter(|flight| !flight.is_complete) {
            let data = &flight.half.memory()[..flight.length];
            scatter(&mut files[flight.file].durable, flight.offset as usize, data, random);
        }
        names.into_iter().map(|(name, file)| (name, files[file].durable.clone())).collect()
    }
}

/// A random subset of the sectors of `data` arrives.
fn scatter(bytes: &mut Vec<u8>, at: usize, data: &[u8], random: &mut Random) {
    // From none to all of them, and often just one missing or a cut in the middle.
    let sectors = data.len().div_ceil(512);
    let style = random.below(5);
    let pivot = random.below(sectors as u64 + 1) as usize;
    for (index, sector) in data.chunks(512).enumerate() {
        let arrives = match style {
            0 => index < pivot,
            1 => index >= pivot,
            2 => index != pivot,
            3 => random.below(8) != 0,
            _ => random.below(2) == 0,
        };
        if arrives {
            put(bytes, at + index * 512, sector);
        }
    }
}

impl Flusher for SimulatedFlusher {
    type File = SimulatedFile;

    fn start(
        &mut self,
        file: &SimulatedFile,
        offset: u64,
        half: Half,
        length: usize,
    ) -> Result<(), LogFailure> {
        let mut state = self.0.state();
        assert!(state.flight.is_none());
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64) && length.is_multiple_of(BLOCK_BYTES));
        state.writes_started += 1;
        state.flight =
            Some(InFlight { file: file.0, offset, half, length, is_complete: false, outcome: None });
        Ok(())
    }

    fn finished(&mut self) -> Result<Option<(Half, io::Result<usize>)>, LogFailure> {
        let mut state = self.0.state();
        let done = state.flight.take_if(|flight| flight.is_complete);
        Ok(done.map(|flight| {
            let outcome = match flight.outcome {
                None => Ok(flight.length),
                Some(Fault::Short) => Ok(flight.length / 2),
                Some(Fault::Error) => Err(io::Error::from_raw_os_error(5)),
            };
            (flight.half, outcome)
        }))
    }

    fn wake_when_finished(&mut self) -> Result<(), LogFailure> {
        Ok(())
    }

    fn wait(&mut self) -> Result<(), LogFailure> {
        self.0.complete();
        Ok(())
    }
}

impl Directory for SimulatedDirectory {
    type File = SimulatedFile;

    fn create(&mut self, name: &str) -> io::Result<SimulatedFile> {
        let mut state = self.0.state();
        let file = state.files.len();
        state.files.push(FileState::default());
        assert!(state.names.insert(name.to_owned(), file).is_none());
        state.journal.push(Change::Create(name.to_owned(), file));
        Ok(SimulatedFile(file))
    }

    fn reserve(&mut self, file: &SimulatedFile, bytes: u64) -> io::Result<()> {
        let mut state = self.0.state();
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.journal.push(Change::Size(file.0, bytes));
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(if self.0.state().is_full { 0 } else { u64::MAX })
    }

    fn write_header(&mut self, file: &SimulatedFile) -> io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        block[..LOG_HEADER.len()].copy_from_slice(&LOG_HEADER);
        self.0.state().files[file.0].write_unsynced(0, &block);
        self.sync(file)
    }

    fn write_zeros(&mut self, file: &SimulatedFile, offset: u64, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; bytes as usize];
        self.0.state().files[file.0].write_unsynced(offset as usize, &zeros);
        Ok(())
    }

    fn sync(&mut self, file: &SimulatedFile) -> io::Result<()> {
        let mut state = self.0.state();
        state.commit();
        let FileState { durable, unsynced } = &mut state.files[file.0];
        for (at, data) in std::mem::take(unsynced) {
            put(durable, at, &data);
        }
        Ok(())
    }

    fn trim(&mut self, file: &SimulatedFile, bytes: u64) -> io::Result<()> {
        self.0.state().journal.push(Change::Size(file.0, bytes));
        // The sync behind it may or may not have run when the power fails: leave it out.
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.state();
        assert!(!state.names.contains_key(to), "{to} is taken");
        let file = state.names.remove(from).expect("prepared before it is named");
        state.names.insert(to.to_owned(), file);
        state.journal.push(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut state = self.0.state();
        if state.names_fail {
            return Err(io::Error::other("no names today"));
        }
        state.commit();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.state();
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.journal.push(Change::Remove(name.to_owned()));
        Ok(())
    }
}
