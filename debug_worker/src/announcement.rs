//! The files by which `trapgate gdb` and `trapgate lldb` find the debug servers of a user.
//!
//! A server has a file in `$XDG_RUNTIME_DIR/trapgate` as long as the server runs. Only the user can write there. The server holds a lock (flock(2)) on its
//! file, which the kernel releases when the process has ended. So the file of a server that was killed is recognised, also if another process has got the process id.
//! A child of the VMM may keep the lock, so the process has to be there too.

use crate::address::ListenAddress;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::test_kill_process;
use std::ffi::OsStr;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

/// The first field of each file. The number counts the changes of the form.
const FORM: &[u8] = b"trapgate 1";

/// Ends each field. No path contains it.
const END: u8 = 0;

/// The maximum length of a file in bytes, for three paths of the maximum length.
const LONGEST: u64 = 16 << 10;

/// A debug server that runs, as it announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningServer {
    /// The address on which the server listens.
    pub address: ListenAddress,
    /// The process of the VMM.
    pub process: u32,
    /// The name of the guest or of the VMM, for texts.
    pub guest: String,
    /// The file with the symbols of the guest.
    pub symbols: Option<PathBuf>,
}

impl RunningServer {
    /// A server of this process. Relative paths are seen from the present working folder.
    pub fn new(address: ListenAddress, guest: String, symbols: Option<PathBuf>) -> Self {
        Self {
            address,
            process: std::process::id(),
            guest,
            symbols,
        }
    }
}

/// The file of a server of this process. Dropping it removes the file.
#[derive(Debug)]
pub struct Announcement {
    path: PathBuf,
    /// The descriptor has the lock.
    _locked: File,
}

impl Announcement {
    /// Writes the file. `runtime_dir` is the value of `XDG_RUNTIME_DIR`.
    pub fn new(runtime_dir: &Path, server: &RunningServer) -> io::Result<Self> {
        let folder = folder(runtime_dir)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        // A file that a killed process has left has another name, and so has the one of a second server in this process.
        let name = format!("{}-{now}", server.process);
        let aside = folder.join(format!(".{name}"));
        let path = folder.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        let mut write = || {
            file.lock()?;
            file.write_all(&to_bytes(server)?)?;
            // The name that others read appears with the lock and the whole text.
            fs::rename(&aside, &path)
        };
        if let Err(error) = write() {
            // The first error counts.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        Ok(Self {
            path,
            _locked: file,
        })
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the file for `trapgate gdb` stays");
        }
    }
}

/// The servers of this user that run now, in the order of their process ids. `runtime_dir` is the value of `XDG_RUNTIME_DIR`.
///
/// Files of servers that were killed are removed. A file that another user could have written, or that is no text of a server, is left out.
pub fn running_servers(runtime_dir: &Path) -> io::Result<Vec<RunningServer>> {
    let mut servers = Vec::new();
    for entry in fs::read_dir(folder(runtime_dir)?)? {
        let entry = entry?;
        // A name with a dot is that of a file that is being written.
        if entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        match read(&entry.path()) {
            Ok(server) => servers.extend(server),
            Err(error) => {
                tracing::debug!(path = %entry.path().display(), %error, "not a file of a debug server");
            }
        }
    }
    servers.sort_by_key(|server| server.process);
    Ok(servers)
}

/// The server of a file. `None`: the server has ended.
fn read(path: &Path) -> io::Result<Option<RunningServer>> {
    let refused = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || !is_ours(&metadata, 0o077) || metadata.len() > LONGEST {
        return Err(refused("no file of mode 0600 of this user, or too long"));
    }
    let file = File::open(path)?;
    match file.try_lock_shared() {
        Ok(()) => {
            // A second reader may have removed the file. No other server gets the name.
            let _ = fs::remove_file(path);
            return Ok(None);
        }
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    let server = from_bytes(&bytes).ok_or_else(|| refused("not the text of a server"))?;
    // A child of the VMM that has ended may have the descriptor with the lock.
    Ok(Some(server).filter(|server| exists(server.process)))
}

/// Whether there is a process with this id.
fn exists(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| test_kill_process(process) != Err(Errno::SRCH))
}

/// The folder of the files. It and the folder around it must be such that no other user can put a file there.
fn folder(runtime_dir: &Path) -> io::Result<PathBuf> {
    let refused = |path: &Path| {
        let why = format!(
            "{} is not a folder of this user in which no other user can write",
            path.display()
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    };
    let metadata = fs::metadata(runtime_dir)?;
    if !runtime_dir.is_absolute() || !metadata.is_dir() || !is_ours(&metadata, 0o022) {
        return refused(runtime_dir);
    }
    let folder = runtime_dir.join("trapgate");
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(&folder)?;
    match metadata.is_dir() && is_ours(&metadata, 0o077) {
        true => Ok(folder),
        false => refused(&folder),
    }
}

/// Whether a file belongs to this user, and has none of these rights for others.
fn is_ours(metadata: &Metadata, rights: u32) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & rights == 0
}

fn to_bytes(server: &RunningServer) -> io::Result<Vec<u8>> {
    let address = match &server.address {
        ListenAddress::Tcp(address) => address.to_string().into_bytes(),
        ListenAddress::Unix(path) => {
            [b"unix:", std::path::absolute(path)?.as_os_str().as_bytes()].concat()
        }
    };
    let has_control = |text: &[u8]| text.iter().any(u8::is_ascii_control);
    if has_control(&address) {
        let why = "a control character in the address";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let symbols = match &server.symbols {
        Some(path) => std::path::absolute(path)?.into_os_string().into_vec(),
        None => Vec::new(),
    };
    let symbols = Some(symbols).filter(|path| !has_control(path));
    let guest = server
        .guest
        .replace(|char: char| char.is_ascii_control(), "?");
    let process = server.process.to_string();
    let fields = [
        FORM,
        &address,
        process.as_bytes(),
        guest.as_bytes(),
        &symbols.unwrap_or_default(),
    ];
    let ended = fields.map(|field| [field, &[END]].concat());
    Ok(ended.concat())
}

/// `None`: the bytes are no text of a server. Debuggers take parts of the text as parts of commands, so a text with a control character is none.
fn from_bytes(bytes: &[u8]) -> Option<RunningServer> {
    let text = bytes.strip_suffix(&[END])?;
    let fields: Vec<&[u8]> = text.split(|byte| *byte == END).collect();
    let [FORM, address, process, guest, symbols] = fields[..] else {
        return None;
    };
    if [address, guest, symbols]
        .concat()
        .iter()
        .any(u8::is_ascii_control)
    {
        return None;
    }
    let absolute =
        |path| Some(PathBuf::from(OsStr::from_bytes(path))).filter(|path| path.is_absolute());
    let address = match address.strip_prefix(b"unix:") {
        Some(path) => ListenAddress::Unix(absolute(path)?),
        // Not `ListenAddress::from_str`, which would ask a name server.
        None => ListenAddress::Tcp(str::from_utf8(address).ok()?.parse().ok()?),
    };
    let symbols = match symbols {
        [] => None,
        path => Some(absolute(path)?),
    };
    Some(RunningServer {
        address,
        process: str::from_utf8(process).ok()?.parse().ok()?,
        guest: str::from_utf8(guest).ok()?.to_owned(),
        symbols,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::chown;
    use std::os::unix::fs::symlink;

    fn server(address: &str) -> RunningServer {
        RunningServer {
            address: address.parse().expect("an address"),
            process: std::process::id(),
            guest: "the demo guest".to_owned(),
            symbols: Some("/a b/vmlinux".into()),
        }
    }

    /// A folder as `XDG_RUNTIME_DIR` names one.
    fn runtime_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("ours");
        dir
    }

    fn names(runtime_dir: &tempfile::TempDir) -> usize {
        fs::read_dir(runtime_dir.path().join("trapgate"))
            .expect("a folder")
            .count()
    }

    /// Puts a file there that is locked as that of a server.
    fn forge(folder: &Path, name: &str, bytes: &[u8]) -> File {
        let path = folder.join(name);
        fs::write(&path, bytes).expect("writable");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        let file = File::open(&path).expect("there");
        file.lock().expect("nobody else has it");
        file
    }

    #[test]
    fn a_server_is_found_as_long_as_it_is_announced() {
        let dir = runtime_dir();
        let servers = || running_servers(dir.path()).expect("readable");
        assert_eq!(servers(), []);
        let first = Announcement::new(dir.path(), &server("127.0.0.1:4000")).expect("written");
        let mut without_symbols = server("unix:/run/a b");
        without_symbols.symbols = None;
        without_symbols.process = 1;
        let second = Announcement::new(dir.path(), &without_symbols).expect("written");
        assert_eq!(
            servers(),
            [without_symbols.clone(), server("127.0.0.1:4000")]
        );
        drop(first);
        assert_eq!(servers(), [without_symbols]);
        drop(second);
        assert_eq!((names(&dir), servers()), (0, vec![]));
    }

    /// A child of the VMM has the lock.
    #[test]
    fn a_server_whose_process_is_gone_is_not_found() {
        let dir = runtime_dir();
        let mut ended = std::process::Command::new("true")
            .spawn()
            .expect("a process");
        ended.wait().expect("a child");
        let mut of_ended = server("127.0.0.1:4000");
        of_ended.process = ended.id();
        let _announcement = Announcement::new(dir.path(), &of_ended).expect("written");
        assert_eq!(running_servers(dir.path()).expect("readable"), []);
    }

    #[test]
    fn control_characters_in_names_are_not_announced() {
        let dir = runtime_dir();
        let mut odd = server("127.0.0.1:4000");
        odd.guest = "a\n\u{1b}b".to_owned();
        odd.symbols = Some("/a\nb".into());
        let _announcement = Announcement::new(dir.path(), &odd).expect("written");
        let found = running_servers(dir.path()).expect("readable").remove(0);
        assert_eq!((found.guest.as_str(), found.symbols), ("a??b", None));
        let refused = Announcement::new(dir.path(), &server("unix:/a\nb"));
        assert_eq!(
            refused.expect_err("no address").kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn relative_paths_become_absolute() {
        let dir = runtime_dir();
        let mut relative = server("unix:socket");
        relative.symbols = Some("vmlinux".into());
        let _announcement = Announcement::new(dir.path(), &relative).expect("written");
        let found = running_servers(dir.path()).expect("readable").remove(0);
        let here = std::env::current_dir().expect("a folder");
        assert_eq!(found.address, ListenAddress::Unix(here.join("socket")));
        assert_eq!(found.symbols, Some(here.join("vmlinux")));
    }

    #[test]
    fn a_file_whose_server_was_killed_is_removed() {
        let dir = runtime_dir();
        let mut announcement =
            Announcement::new(dir.path(), &server("127.0.0.1:4000")).expect("written");
        // As the kernel closes the descriptor of a killed process.
        announcement._locked = File::open("/dev/null").expect("there");
        assert_eq!(names(&dir), 1);
        assert_eq!(running_servers(dir.path()).expect("readable"), []);
        assert_eq!(names(&dir), 0);
    }

    #[test]
    fn only_files_that_this_user_alone_can_write_are_read() {
        let dir = runtime_dir();
        let folder = folder(dir.path()).expect("made");
        let text = to_bytes(&server("127.0.0.1:4000")).expect("a text");
        let _locked = forge(&folder, "1", &text);
        let servers = || running_servers(dir.path()).expect("readable").len();
        assert_eq!(servers(), 1, "a proper file");
        let mode = |mode| {
            fs::set_permissions(folder.join("1"), Permissions::from_mode(mode)).expect("ours");
        };
        mode(0o620);
        assert_eq!(servers(), 0, "a file that the group can write");
        mode(0o600);
        if rustix::process::geteuid().is_root() {
            let owner = |id| chown(folder.join("1"), Some(id), None).expect("by root");
            owner(1);
            assert_eq!(servers(), 0, "a file of another user");
            owner(0);
        } else {
            println!("SKIP: a file of another user, which only root can make");
        }
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(folder.join("1"), &elsewhere).expect("ours");
        symlink(&elsewhere, folder.join("1")).expect("ours");
        assert_eq!(servers(), 0, "a symbolic link");
        fs::remove_file(folder.join("1")).expect("there");
        fs::create_dir(folder.join("1")).expect("ours");
        assert_eq!(servers(), 0, "a folder");
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("2"), 0o600.into()).expect("ours");
        assert_eq!(servers(), 0, "a pipe, at which a reader would wait");
        let _long = forge(&folder, "3", &[&text[..], &[b'x'; 20_000]].concat());
        assert_eq!(servers(), 0, "a long file");
    }

    #[test]
    fn a_folder_in_which_others_can_write_is_refused() {
        let dir = runtime_dir();
        let announce = || {
            let result = Announcement::new(dir.path(), &server("127.0.0.1:4000"));
            result.map(drop).map_err(|error| error.kind())
        };
        let list = || {
            running_servers(dir.path())
                .map(drop)
                .map_err(|error| error.kind())
        };
        assert_eq!((announce(), list()), (Ok(()), Ok(())));
        let refused = Err(io::ErrorKind::PermissionDenied);
        for folder in [dir.path().to_owned(), dir.path().join("trapgate")] {
            fs::set_permissions(&folder, Permissions::from_mode(0o770)).expect("ours");
            assert_eq!((announce(), list()), (refused, refused), "{folder:?}");
            fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("ours");
        }
        let other = runtime_dir();
        fs::remove_dir(dir.path().join("trapgate")).expect("empty");
        symlink(other.path(), dir.path().join("trapgate")).expect("ours");
        assert_eq!((announce(), list()), (refused, refused), "a symbolic link");
        let relative = Announcement::new(Path::new("."), &server("127.0.0.1:4000"));
        assert!(relative.is_err(), "relative");
    }

    #[test]
    fn what_a_debugger_could_take_for_more_than_an_address_is_no_text_of_a_server() {
        let good = to_bytes(&server("127.0.0.1:4000")).expect("a text");
        assert_eq!(from_bytes(&good), Some(server("127.0.0.1:4000")));
        let text = |address: &str, guest: &str, symbols: &str| {
            format!("trapgate 1\0{address}\x004711\0{guest}\0{symbols}\0")
        };
        for good in [
            text("[::1]:1", "", ""),
            text("unix:/a", "guest", "/vmlinux"),
        ] {
            assert!(from_bytes(good.as_bytes()).is_some(), "{good:?}");
        }
        for bad in [
            text("-ex", "", ""),
            text("|sh", "", ""),
            text("localhost:1", "", ""),
            text("unix:x -ex shell", "", ""),
            text("unix:|sh", "", ""),
            text("unix:", "", ""),
            text("unix:/x\nshell touch y", "", ""),
            text("127.0.0.1:1\nshell touch y", "", ""),
            text("127.0.0.1:1", "a\u{1b}[31m", ""),
            text("127.0.0.1:1", "", "-x"),
            text("127.0.0.1:1", "", "/a\nshell touch y"),
            text("127.0.0.1:1", "", "/a") + "more\0",
            text("127.0.0.1:1", "", "").replace("trapgate 1", "trapgate 2"),
            text("127.0.0.1:1", "", "").replace("4711", "-1"),
            text("127.0.0.1:1", "", "")
                .trim_end_matches('\0')
                .to_owned(),
            String::new(),
        ] {
            assert_eq!(from_bytes(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
