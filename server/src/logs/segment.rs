//! The segment files, and appending to them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

/// A segment is full at this size: small enough to be deleted whole, large enough that few are open.
const FULL: u64 = 64 << 20;

/// The segment files of one server. Appended to by the state file's writer only.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    full: u64,
    current: Mutex<Option<Current>>,
    /// Why the last append failed, if it did.
    trouble: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    file: Arc<File>,
    length: u64,
}

/// Where bytes were put.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) file: Arc<File>,
    /// This segment is a new one: those before it are full.
    pub(super) fresh: bool,
}

impl Segments {
    /// The segments in this folder, which is made if it is missing.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Self::open_with(dir, FULL)
    }

    pub(super) fn open_with(dir: &Path, full: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            full,
            current: Mutex::default(),
            trouble: Mutex::default(),
        })
    }

    /// Appends bytes to the segment that is being filled.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<Place> {
        let result = self.put(bytes);
        *lock(&self.trouble) = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// Why logs cannot be written now, after trying to.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).as_ref()?;
        let path = self.dir.join("probe");
        let tried = fs::write(&path, [0; 4096]).and_then(|()| fs::remove_file(&path));
        let mut trouble = lock(&self.trouble);
        *trouble = tried.err().map(|error| error.to_string());
        trouble.clone()
    }

    fn put(&self, bytes: &[u8]) -> io::Result<Place> {
        let mut current = lock(&self.current);
        let before = match current.take() {
            Some(known) => Some(known),
            None => self.reopen()?,
        };
        let (mut at, fresh) = match before {
            Some(known) if known.length < self.full => (known, false),
            other => (self.create(other.map_or(1, |full| full.number + 1))?, true),
        };
        let place = Place {
            segment: at.number,
            offset: at.length,
            file: Arc::clone(&at.file),
            fresh,
        };
        // After a failed write its bytes are garbage that no row points to; the next goes behind the length known.
        let written = at.file.write_all_at(bytes, at.length);
        if written.is_ok() {
            at.length += bytes.len() as u64;
        }
        *current = Some(at);
        written.map(|()| place)
    }

    /// Lets go of the segment that is being filled: the next append opens it anew.
    #[cfg(test)]
    pub(crate) fn release(&self) {
        lock(&self.current).take();
    }

    /// The segment that is being filled, if one is.
    pub(crate) fn filling(&self) -> Option<u64> {
        let current = lock(&self.current);
        current.as_ref().map(|current| current.number)
    }

    /// The last segment that an earlier process filled.
    fn reopen(&self) -> io::Result<Option<Current>> {
        let Some(number) = self.numbers()?.into_iter().max() else {
            return Ok(None);
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(number))?;
        let length = file.metadata()?.len();
        Ok(Some(Current {
            number,
            file: Arc::new(file),
            length,
        }))
    }

    fn create(&self, number: u64) -> io::Result<Current> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(self.path(number))?;
        File::open(&self.dir)?.sync_all()?;
        let length = file.metadata()?.len();
        Ok(Current {
            number,
            file: Arc::new(file),
            length,
        })
    }

    /// Reads a part of a segment; short if the file is.
    pub(super) fn read(&self, segment: u64, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = File::open(self.path(segment))?;
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes.into())
    }

    /// The segments whose last byte was written before `time`, but never the one being filled.
    pub(crate) fn older_than(&self, time: SystemTime) -> io::Result<Vec<u64>> {
        let mut numbers = self.numbers()?;
        numbers.sort_unstable();
        numbers.pop();
        let old = |number: &u64| {
            let changed = fs::metadata(self.path(*number)).and_then(|found| found.modified());
            changed.is_ok_and(|changed| changed < time)
        };
        Ok(numbers.into_iter().filter(old).collect())
    }

    /// Deletes a segment. One that is gone already is fine.
    pub(crate) fn delete(&self, segment: u64) -> io::Result<()> {
        match fs::remove_file(self.path(segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves all segments into a folder beside: their index is lost. Where they are now, if there were any.
    pub(crate) fn set_aside(&self) -> io::Result<Option<PathBuf>> {
        let numbers = self.numbers()?;
        if numbers.is_empty() {
            return Ok(None);
        }
        let date = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%S%fZ")
            .to_string();
        let aside = self.dir.join(format!("unreadable-{date}"));
        fs::create_dir(&aside)?;
        for number in numbers {
            let name = name(number);
            fs::rename(self.dir.join(&name), aside.join(&name))?;
        }
        let mut note = File::create(aside.join("README"))?;
        writeln!(
            note,
            "Logs whose index was set aside as unreadable. Nothing reads them any more."
        )?;
        Ok(Some(aside))
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number: Option<u64> = name
                .to_str()
                .and_then(|name| name.strip_suffix(".log")?.parse().ok());
            numbers.extend(number);
        }
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(name(number))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(number: u64) -> String {
    format!("{number:010}.log")
}
