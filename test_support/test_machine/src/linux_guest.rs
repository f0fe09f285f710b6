//! The stock Linux kernel as a guest. `cargo xtask nested` names its files in variables.

use crate::running::Running;
use crate::running::kvm_here;

/// The files of the kernel.
pub struct Linux {
    /// The path of the bzImage.
    pub kernel: String,
    /// The path of the initramfs.
    pub initrd: String,
    /// The path of a disk with a file system that has the same init.
    pub disk: String,
    symbols: String,
}

impl Linux {
    /// `None`, with the reason printed, if they are missing.
    ///
    /// # Panics
    /// They are missing in the nested bed.
    pub fn given() -> Option<Self> {
        let variable = |name: &str| match std::env::var(name) {
            Ok(path) => Some(path),
            Err(_) => {
                assert!(
                    std::env::var_os("TRAPGATE_NESTED").is_none(),
                    "the nested bed does not set {name}"
                );
                println!(
                    "SKIP: {name} names no file; `cargo xtask nested` runs this test with a Debian kernel"
                );
                None
            }
        };
        let given = Self {
            kernel: variable("TRAPGATE_TEST_LINUX_KERNEL")?,
            initrd: variable("TRAPGATE_TEST_LINUX_INITRD")?,
            disk: variable("TRAPGATE_TEST_LINUX_DISK")?,
            symbols: variable("TRAPGATE_TEST_LINUX_SYMS")?,
        };
        kvm_here().then_some(given)
    }

    /// Starts the guest. `cmdline` is appended to the options that every test needs.
    pub fn start(&self, args: &[&str], cmdline: &str) -> Running {
        let cmdline = format!("quiet {cmdline}");
        self.boot(&[&["--no-reboot"], args].concat(), &cmdline)
    }

    /// Boots the guest, and boots it again at each reset, with all messages.
    pub fn boot(&self, args: &[&str], cmdline: &str) -> Running {
        let cmdline = format!("console=ttyS0 nokaslr panic=-1 {cmdline}");
        let kernel = [
            "run",
            "--kernel",
            &self.kernel,
            "--initrd",
            &self.initrd,
            "--cmdline",
            &cmdline,
        ];
        Running::start(&[&kernel[..], args].concat())
    }

    /// The address of a symbol, in GDB's syntax.
    pub fn symbol(&self, name: &str) -> String {
        format!("{:#x}", self.address(name))
    }

    /// The address of a symbol.
    ///
    /// # Panics
    /// The kernel has no such symbol.
    pub fn address(&self, name: &str) -> u64 {
        let mut found = self.functions(&|symbol| symbol == name);
        assert!(
            !found.is_empty(),
            "{name} is in no line of {}",
            self.symbols
        );
        found.swap_remove(0).0
    }

    /// The symbols whose names `wanted` accepts, with their addresses, in the order of the file.
    ///
    /// # Panics
    /// The file cannot be read.
    pub fn functions(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<(u64, String)> {
        let symbols = std::fs::read_to_string(&self.symbols).expect("a readable file");
        let mut found = Vec::new();
        for line in symbols.lines() {
            let mut words = line.split_whitespace();
            let (Some(address), Some(_kind), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if wanted(name) {
                let address = u64::from_str_radix(address, 16).expect("an address");
                found.push((address, name.to_owned()));
            }
        }
        found
    }
}
