//! Files mapped for reading.
//!
//! Named room for `unsafe`: a map is a slice only as long as nobody cuts or changes the file. The promise rests on the
//! data directory's lock (one server per directory) and on order: this server cuts a file only when its map is gone.

use memmap2::{Advice, Mmap};
use std::{fs::File, io, ops::Deref, path::Path};

/// A whole file as bytes.
#[derive(Debug)]
pub struct FileMap(Option<Mmap>);

impl FileMap {
    /// Maps the file at `path`, to be read once from front to back.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            // An empty file cannot be mapped.
            return Ok(Self(None));
        }
        // SAFETY: the data directory is locked by this process, and within it a file is cut or written only when no
        // map of it exists: recovery drops its maps before it repairs, finished logs and snapshots never change.
        let map = unsafe { Mmap::map(&file) }?;
        // Only a hint.
        let _ = map.advise(Advice::Sequential);
        Ok(Self(Some(map)))
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
