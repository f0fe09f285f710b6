//! A client in non-stop mode that knows which threads are stopped.

use object::Object as _;
use object::ObjectSymbol as _;
use std::collections::BTreeMap;
use std::net::TcpStream;
use test_machine::packets::Packets;
use test_machine::running::Running;
use test_machine::running::kvm_here;

/// The bytes of `struct cpu` of the demo guest, and the offset of its `rounds`.
const CPU: u64 = 0x28;
const ROUNDS: u64 = 0x10;

/// The address of a symbol of the demo guest.
pub(crate) fn address_of(name: &str) -> u64 {
    let file = object::File::parse(demo_guest::ELF).expect("an ELF file");
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
    symbol.expect("a symbol of the demo guest").address()
}

pub(crate) struct Session {
    pub(crate) packets: Packets<TcpStream>,
    /// The stopped threads.
    pub(crate) stopped: Vec<u32>,
    /// How often each thread has stopped at a breakpoint.
    pub(crate) hits: BTreeMap<u32, u64>,
    address: String,
    vm: Running,
}

impl Session {
    /// The guest is at its first instruction. `None`, with the reason printed, if this host has no KVM.
    pub(crate) fn new(cpus: u32) -> Option<Self> {
        if !kvm_here() {
            return None;
        }
        let cpus = cpus.to_string();
        let mut vm = Running::start(&["--gdb", "127.0.0.1:0", "--cpus", &cpus]);
        Some(Self::with(vm.address(), vm))
    }

    fn with(address: String, vm: Running) -> Self {
        let mut packets = Packets::connect(&address);
        packets.ask("qSupported:swbreak+;hwbreak+");
        assert_eq!(packets.ask("QNonStop:1"), "OK");
        assert_eq!(packets.ask("?"), "T00thread:1;");
        assert_eq!(packets.ask("vStopped"), "OK");
        Self {
            packets,
            stopped: vec![1],
            hits: BTreeMap::new(),
            address,
            vm,
        }
    }

    /// Another client takes the place of this one, which goes without a word.
    pub(crate) fn reconnect(self) -> Self {
        drop(self.packets);
        Self::with(self.address, self.vm)
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, packet: &str) {
        assert_eq!(self.packets.ask(packet), "OK", "{packet}");
    }

    /// Resumes a stopped thread.
    #[track_caller]
    pub(crate) fn resume(&mut self, action: &str, thread: u32) {
        let position = self.stopped.iter().position(|stopped| *stopped == thread);
        self.stopped.remove(position.expect("a stopped thread"));
        self.ok(&format!("vCont;{action}:{thread:x}"));
    }

    /// Waits for the next stop, and takes all that have come with it.
    #[track_caller]
    pub(crate) fn wait(&mut self) {
        let notification = self
            .packets
            .notification()
            .expect("the session goes on until a thread stops");
        let mut stop = notification
            .strip_prefix("Stop:")
            .expect("no other notification")
            .to_owned();
        while stop != "OK" {
            let thread = stop.split("thread:").nth(1).expect("a thread");
            let thread = thread.split(';').next().expect("its number");
            let thread = u32::from_str_radix(thread, 16).expect("a number");
            assert!(
                !self.stopped.contains(&thread),
                "thread {thread} has stopped before: {stop}"
            );
            self.stopped.push(thread);
            if stop.contains("break:") {
                *self.hits.entry(thread).or_default() += 1;
            }
            stop = self.packets.ask("vStopped");
        }
    }

    /// Stops every thread.
    #[track_caller]
    pub(crate) fn stop_all(&mut self, cpus: u32) {
        self.ok("vCont;t");
        while self.stopped.len() < cpus as usize {
            self.wait();
        }
    }

    /// A number of 8 bytes in the guest's memory.
    #[track_caller]
    pub(crate) fn number(&mut self, address: u64) -> u64 {
        let reply = self.packets.ask(&format!("m{address:x},8"));
        u64::from_str_radix(&reply, 16)
            .unwrap_or_else(|_| panic!("`m` was answered `{reply}`"))
            .swap_bytes()
    }

    /// How many rounds the guest says that it has finished on this thread's CPU.
    #[track_caller]
    pub(crate) fn rounds(&mut self, thread: u32) -> u64 {
        let cpu = address_of("cpus") + CPU * u64::from(thread - 1);
        self.number(cpu + ROUNDS)
    }

    /// The program counter of a stopped thread.
    #[track_caller]
    pub(crate) fn rip(&mut self, thread: u32) -> u64 {
        self.ok(&format!("Hg{thread:x}"));
        let reply = self.packets.ask("p10");
        u64::from_str_radix(&reply, 16)
            .unwrap_or_else(|_| panic!("`p10` was answered `{reply}`"))
            .swap_bytes()
    }
}
