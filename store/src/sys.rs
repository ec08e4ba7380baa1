//! What needs `unsafe`: mapping a file and lowering a thread's priority. Nothing else in this crate may.
#![allow(unsafe_code)]

use std::{fmt, fs::File, io};

use memmap2::Mmap;

/// The bytes of a file, mapped into memory.
pub struct MappedFile(Mmap);

// === impl MappedFile ===

impl MappedFile {
    /// Maps all of `file`. The file must be one that nobody writes to or shortens any more: the store renames
    /// finished index files into place and never changes them.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the map is read-only and the file is not written to after it got its name (see above). Someone
        // with root's rights could still shorten it, which ends the process with SIGBUS, but leads to no
        // invalid memory access: the bytes are only ever read as plain integers.
        unsafe { Mmap::map(file) }.map(Self)
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFile").field("len", &self.0.len()).finish()
    }
}

/// Makes the calling thread run only when no other thread of the machine wants the processor.
pub(crate) fn run_at_idle_priority() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` lives across the call, and 0 means the calling thread. It changes scheduling only.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn maps_what_the_file_holds() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"index").unwrap();
        assert_eq!(MappedFile::map(&file).unwrap().as_ref(), b"index");
    }

    #[test]
    fn maps_an_empty_file() {
        assert_eq!(MappedFile::map(&tempfile::tempfile().unwrap()).unwrap().as_ref(), b"");
    }

    #[test]
    fn lowers_the_calling_thread_only() {
        std::thread::spawn(|| {
            run_at_idle_priority().unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Field 41 is the policy; the name in field 2 is in parentheses.
            let policy = stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap();
            assert_eq!(policy, libc::SCHED_IDLE.to_string());
        })
        .join()
        .unwrap();
    }
}
