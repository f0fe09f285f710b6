//! A folder for one run of the bed.

use anyhow::Context as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// A folder for one run, removed at the end of the run. The paths of sockets are limited to 108 bytes, so the folder is not below the checkout.
///
/// Another process removes the folder after any end of this process, because Ctrl-C leaves no time for destructors.
pub(super) struct Scratch {
    path: PathBuf,
    /// Waits for the end of its standard input. Only this process has the other end.
    remover: Child,
}

impl Scratch {
    const PREFIX: &str = "trapgate-nested-";

    /// Makes the folder and starts the process that removes it.
    pub(super) fn new() -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Self::sweep();
        let path = std::env::temp_dir().join(format!(
            "{}{}-{}",
            Self::PREFIX,
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        let remover = Command::new("sh")
            .args(["-c", "read _; exec rm -rf -- \"$1\"", "remover"])
            .arg(&path)
            .stdin(Stdio::piped())
            // Ctrl-C of the terminal goes to our process group.
            .process_group(0)
            .spawn()
            .context("cannot start `sh`")?;
        let scratch = Self { path, remover };
        let path = scratch.path();
        std::fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(scratch)
    }

    /// The path of the folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes folders of runs whose removing process was killed too. A disk image has 200 MB.
    fn sweep() {
        let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let process = name
                .to_str()
                .and_then(|name| name.strip_prefix(Self::PREFIX)?.split('-').next());
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                // A folder of another user must stay.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead as _;
    use std::io::BufReader;
    use std::io::Read as _;

    /// This variable is set for a process that is killed while it has a folder.
    const CHILD: &str = "TRAPGATE_SCRATCH_CHILD";

    #[test]
    fn a_folder_goes_with_its_process_however_that_ends() {
        if std::env::var_os(CHILD).is_some() {
            let scratch = Scratch::new().unwrap();
            std::fs::write(scratch.path().join("image"), "x").unwrap();
            println!("\nfolder {}", scratch.path().display());
            // The process waits until it is killed.
            let _ = std::io::stdin().read(&mut [0]);
            panic!("nobody ended this process");
        }
        for signal in ["INT", "TERM", "KILL"] {
            let test = "nested::scratch::tests::a_folder_goes_with_its_process_however_that_ends";
            // A shell that runs the tests in the background may ignore SIGINT, and a new process inherits this.
            let mut child = Command::new("env")
                .arg("--default-signal=INT")
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(CHILD, "1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let folder = lines
                .find_map(|line| Some(PathBuf::from(line.unwrap().strip_prefix("folder ")?)))
                .unwrap();
            assert!(folder.join("image").exists());
            // A terminal sends the signal to the whole process group.
            let killed = Command::new("sh")
                .args(["-c", "kill -s $1 -- -$2", "kill", signal])
                .arg(child.id().to_string())
                .status();
            assert!(killed.unwrap().success());
            // The standard output of the removing process is our end of the pipe too.
            assert_eq!(lines.map_while(Result::ok).count(), 0);
            assert!(!folder.exists(), "{signal}");
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_folder_goes_when_it_is_dropped() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
