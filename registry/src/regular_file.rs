//! Reading files that others put where we look for them.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// The first `max` bytes of the file at `path`. Only of a regular file: opening a pipe, or reading some devices, could
/// wait for ever on a thread that serves others.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_pipe_is_refused_without_waiting_for_a_writer_and_a_long_file_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, file) = (directory.path().join("pipe"), directory.path().join("file"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(read(&pipe, 10).unwrap_err().to_string()));
        let error = receive.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert!(error.contains("not a regular file"), "{error}");
        assert!(read(Path::new("/dev/zero"), 10).is_err());
        assert!(read(directory.path(), 10).is_err());
        fs::write(&file, "12345").unwrap();
        assert_eq!((read(&file, 3).unwrap(), read(&file, 9).unwrap()), (b"123".to_vec(), b"12345".to_vec()));
    }
}
