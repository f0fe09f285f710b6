//! The stock Linux kernel as a guest. `cargo xtask nested` names its files in variables.

use crate::running::Running;
use crate::running::kvm_here;

/// The files of the kernel. `None`, with the reason printed, if they are missing.
pub(crate) struct Linux {
    pub kernel: String,
    pub initrd: String,
    symbols: String,
}

impl Linux {
    pub(crate) fn given() -> Option<Self> {
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
            symbols: variable("TRAPGATE_TEST_LINUX_SYMS")?,
        };
        kvm_here().then_some(given)
    }

    /// Starts the guest. `cmdline` is appended to the options that every test needs.
    pub(crate) fn start(&self, args: &[&str], cmdline: &str) -> Running {
        let cmdline = format!("quiet {cmdline}");
        self.boot(&[&["--no-reboot"], args].concat(), &cmdline)
    }

    /// Boots the guest, and boots it again at each reset, with all messages.
    pub(crate) fn boot(&self, args: &[&str], cmdline: &str) -> Running {
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
    pub(crate) fn symbol(&self, name: &str) -> String {
        format!("{:#x}", self.address(name))
    }

    pub(crate) fn address(&self, name: &str) -> u64 {
        let mut found = self.functions(&|symbol| symbol == name);
        assert!(
            !found.is_empty(),
            "{name} is in no line of {}",
            self.symbols
        );
        found.swap_remove(0).0
    }

    /// The symbols whose names `wanted` accepts, with their addresses, in the order of the file.
    pub(crate) fn functions(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<(u64, String)> {
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
