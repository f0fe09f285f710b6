//! The debugger for a thread that may wait: the same methods as the async [`Debugger`](crate::Debugger), without another thread.

use crate::breakpoint::Breakpoint;
use crate::error::Error;
use crate::options::Options;
use crate::place::Place;
use crate::scalar::Scalar;
use crate::stop::Stop;
use crate::stop::StopKind;
use crate::symbols::Symbols;
use crate::symbols::Value;
use agent_expr::Expr;
use agent_expr::Printf;
use pal_async::DefaultPool;
use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopOn;
use vmm_core_defs::target::Target;

/// The debugger of a guest: [`crate::Debugger`] for a thread that may wait.
///
/// A method must not be called on the thread that runs the VMM's controller, because the answer would never come. Dropping it detaches: breakpoints are removed, and
/// the guest runs on.
#[derive(Debug)]
pub struct Debugger {
    /// Dropped before the pool, which closes the connection.
    inner: crate::Debugger,
    pool: RefCell<DefaultPool>,
}

/// Runs a method to its end on this thread.
macro_rules! wait {
    ($debugger:expr, $future:expr) => {
        $debugger.pool.borrow_mut().run_until($future)
    };
}

impl Debugger {
    /// As [`crate::Debugger::connect`].
    ///
    /// # Errors
    /// The socket cannot be used, the VMM speaks another version, or another debugger is attached.
    ///
    /// # Panics
    /// The process cannot have two more file descriptors. So do the other constructors.
    pub fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, Options::default())
    }

    /// As [`connect`](Self::connect), with other settings.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub fn connect_with(address: &str, options: Options) -> Result<Self, Error> {
        let mut pool = DefaultPool::new();
        let driver = pool.driver();
        let inner = pool.run_until(crate::Debugger::connect_on(driver, address, options))?;
        let pool = RefCell::new(pool);
        Ok(Self { inner, pool })
    }

    /// As [`crate::Debugger::attach`].
    ///
    /// # Errors
    /// Another debugger is attached, or the guest has ended.
    pub fn attach(target: impl Into<Target>) -> Result<Self, Error> {
        Self::attach_with(target, Options::default())
    }

    /// As [`attach`](Self::attach), with other settings.
    ///
    /// # Errors
    /// Those of [`attach`](Self::attach).
    pub fn attach_with(target: impl Into<Target>, options: Options) -> Result<Self, Error> {
        let mut pool = DefaultPool::new();
        let driver = pool.driver();
        let attach = crate::Debugger::attach_on(driver, target.into(), options);
        let inner = pool.run_until(attach)?;
        let pool = RefCell::new(pool);
        Ok(Self { inner, pool })
    }

    /// As [`crate::Debugger::detach`].
    ///
    /// # Errors
    /// The VMM has not answered, or is gone.
    pub fn detach(self) -> Result<(), Error> {
        let Self { inner, mut pool } = self;
        pool.get_mut().run_until(inner.detach())
    }

    /// As [`crate::Debugger::detach_stopped`].
    ///
    /// # Errors
    /// Those of [`detach`](Self::detach).
    pub fn detach_stopped(self) -> Result<(), Error> {
        let Self { inner, mut pool } = self;
        pool.get_mut().run_until(inner.detach_stopped())
    }

    /// As [`crate::Debugger::kill`].
    ///
    /// # Errors
    /// Those of [`detach`](Self::detach).
    pub fn kill(self) -> Result<(), Error> {
        let Self { inner, mut pool } = self;
        pool.get_mut().run_until(inner.kill())
    }

    /// As [`crate::Debugger::vp`].
    pub const fn vp(&self, index: u32) -> Vp<'_> {
        Vp {
            debugger: self,
            inner: self.inner.vp(index),
        }
    }

    /// As [`crate::Debugger::current`].
    pub fn current(&self) -> Vp<'_> {
        Vp {
            debugger: self,
            inner: self.inner.current(),
        }
    }

    /// As [`crate::Debugger::last_stop`].
    pub const fn last_stop(&self) -> &Stop {
        self.inner.last_stop()
    }

    /// As [`crate::Debugger::capabilities`].
    pub const fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    /// As [`crate::Debugger::load_symbols`].
    ///
    /// # Errors
    /// The file cannot be read, or is no ELF file with readable debug information.
    pub fn load_symbols(&mut self, path: impl AsRef<Path>) -> Result<&Symbols, Error> {
        self.inner.load_symbols(path)
    }

    /// As [`crate::Debugger::set_symbols`].
    pub fn set_symbols(&mut self, symbols: Symbols) {
        self.inner.set_symbols(symbols);
    }

    /// As [`crate::Debugger::symbols`].
    pub const fn symbols(&self) -> Option<&Symbols> {
        self.inner.symbols()
    }

    /// As [`crate::Debugger::address`].
    ///
    /// # Errors
    /// No symbols are loaded, or they do not have the name.
    pub fn address<'a>(&self, place: impl Into<Place<'a>>) -> Result<u64, Error> {
        self.inner.address(place)
    }

    /// As [`crate::Debugger::break_at`].
    ///
    /// # Errors
    /// The VMM permits no more breakpoints, or no debug register is free where one is needed.
    pub fn break_at<'a>(&self, place: impl Into<Place<'a>>) -> Result<Breakpoint, Error> {
        wait!(self, self.inner.break_at(place))
    }

    /// As [`crate::Debugger::hbreak_at`].
    ///
    /// # Errors
    /// No debug register is free.
    pub fn hbreak_at<'a>(&self, place: impl Into<Place<'a>>) -> Result<Breakpoint, Error> {
        wait!(self, self.inner.hbreak_at(place))
    }

    /// As [`crate::Debugger::watch`].
    ///
    /// # Errors
    /// The hardware cannot watch this, or no debug register is free.
    pub fn watch<'a>(&self, place: impl Into<Place<'a>>, len: u64) -> Result<Breakpoint, Error> {
        wait!(self, self.inner.watch(place, len))
    }

    /// As [`crate::Debugger::watch_access`].
    ///
    /// # Errors
    /// Those of [`watch`](Self::watch).
    pub fn watch_access<'a>(
        &self,
        place: impl Into<Place<'a>>,
        len: u64,
    ) -> Result<Breakpoint, Error> {
        wait!(self, self.inner.watch_access(place, len))
    }

    /// As [`crate::Debugger::stop_if`].
    ///
    /// # Errors
    /// A condition is too large, the VMM has no such register, or the breakpoint is one of another debugger.
    pub fn stop_if(
        &self,
        breakpoint: &Breakpoint,
        conditions: impl IntoIterator<Item = Expr>,
    ) -> Result<(), Error> {
        wait!(self, self.inner.stop_if(breakpoint, conditions))
    }

    /// As [`crate::Debugger::print_at`].
    ///
    /// # Errors
    /// Those of [`stop_if`](Self::stop_if). The format is wrong, or the values do not match it.
    pub fn print_at(
        &self,
        breakpoint: &Breakpoint,
        text: Printf,
        conditions: impl IntoIterator<Item = Expr>,
    ) -> Result<(), Error> {
        wait!(self, self.inner.print_at(breakpoint, text, conditions))
    }

    /// As [`crate::Debugger::printed`].
    ///
    /// # Errors
    /// The VMM is gone, or is of an older version that does not print.
    pub fn printed(&mut self, timeout: Duration) -> Result<String, Error> {
        wait!(self, self.inner.printed(timeout))
    }

    /// As [`crate::Debugger::read`].
    ///
    /// # Errors
    /// The guest is running, or not all bytes can be read.
    pub fn read<'a, T: Scalar>(&self, place: impl Into<Place<'a>>) -> Result<T, Error> {
        wait!(self, self.inner.read(place))
    }

    /// As [`crate::Debugger::read_bytes`].
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn read_bytes<'a>(
        &self,
        place: impl Into<Place<'a>>,
        len: usize,
    ) -> Result<Vec<u8>, Error> {
        wait!(self, self.inner.read_bytes(place, len))
    }

    /// As [`crate::Debugger::read_struct`].
    ///
    /// # Errors
    /// Those of [`read`](Self::read), no symbols are loaded, or they have no such type.
    pub fn read_struct<'a>(
        &self,
        type_name: &str,
        place: impl Into<Place<'a>>,
    ) -> Result<Value, Error> {
        wait!(self, self.inner.read_struct(type_name, place))
    }

    /// As [`crate::Debugger::write`].
    ///
    /// # Errors
    /// The guest is running, or a byte has no memory.
    pub fn write<'a, T: Scalar>(&self, place: impl Into<Place<'a>>, value: T) -> Result<(), Error> {
        wait!(self, self.inner.write(place, value))
    }

    /// As [`crate::Debugger::write_bytes`].
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub fn write_bytes<'a>(&self, place: impl Into<Place<'a>>, bytes: &[u8]) -> Result<(), Error> {
        wait!(self, self.inner.write_bytes(place, bytes))
    }

    /// As [`crate::Debugger::read_physical`].
    ///
    /// # Errors
    /// Not all bytes can be read.
    pub fn read_physical(&self, address: u64, len: usize) -> Result<Vec<u8>, Error> {
        wait!(self, self.inner.read_physical(address, len))
    }

    /// As [`crate::Debugger::write_physical`].
    ///
    /// # Errors
    /// A byte has no memory.
    pub fn write_physical(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        wait!(self, self.inner.write_physical(address, bytes))
    }

    /// As [`crate::Debugger::stop_on`].
    ///
    /// # Errors
    /// Those of [`crate::Debugger::stop_on`]: [`Error::NoStopOn`] if the VMM does not tell of an event.
    pub fn stop_on(
        &self,
        events: impl IntoIterator<Item = GuestEventKind>,
    ) -> Result<StopOn, Error> {
        let events = events.into_iter().collect();
        wait!(self, self.inner.stop_on_set(events))
    }

    /// As [`crate::Debugger::running`].
    pub const fn running(&self) -> bool {
        self.inner.running()
    }

    /// As [`crate::Debugger::resume`].
    ///
    /// # Errors
    /// The guest is running already.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.inner.resume()
    }

    /// As [`crate::Debugger::interrupt`].
    ///
    /// # Errors
    /// The VMM does not answer: the thread of a VP may be in the VMM's own code.
    pub fn interrupt(&mut self) -> Result<Stop, Error> {
        wait!(self, self.inner.interrupt())
    }

    /// As [`crate::Debugger::wait`].
    ///
    /// # Errors
    /// The guest is stopped already, did not stop in time, or has ended.
    pub fn wait(&mut self, limit: Duration) -> Result<Stop, Error> {
        wait!(self, self.inner.wait(limit))
    }

    /// As [`crate::Debugger::wait_for`].
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait), and [`Error::OtherStop`].
    pub fn wait_for(&mut self, kind: StopKind, limit: Duration) -> Result<Stop, Error> {
        wait!(self, self.inner.wait_for(kind, limit))
    }

    /// As [`crate::Debugger::run_until`].
    ///
    /// # Errors
    /// The guest is running already, stops for another reason, does not stop in time, or has ended.
    pub fn run_until(&mut self, breakpoint: &Breakpoint, limit: Duration) -> Result<Stop, Error> {
        wait!(self, self.inner.run_until(breakpoint, limit))
    }

    /// As [`crate::Debugger::step`].
    ///
    /// # Errors
    /// The guest is running. [`Error::OtherStop`]: another stop came first, or the step led to a breakpoint.
    pub fn step(&mut self) -> Result<Stop, Error> {
        wait!(self, self.inner.step())
    }

    /// As [`crate::Debugger::step_n`].
    ///
    /// # Errors
    /// Those of [`step`](Self::step), and [`Error::TimedOut`]. Steps that came before are not undone.
    pub fn step_n(&mut self, count: u64) -> Result<Stop, Error> {
        wait!(self, self.inner.step_n(count))
    }
}

/// One VP of the guest: [`crate::Vp`] for a thread that may wait.
#[derive(Debug, Clone, Copy)]
pub struct Vp<'a> {
    debugger: &'a Debugger,
    inner: crate::Vp<'a>,
}

impl Vp<'_> {
    /// As [`crate::Vp::index`].
    pub const fn index(&self) -> u32 {
        self.inner.index()
    }

    /// As [`crate::Vp::registers`].
    ///
    /// # Errors
    /// The guest is running, or has no such VP.
    pub fn registers(&self) -> Result<Box<DebuggerVpState>, Error> {
        wait!(self.debugger, self.inner.registers())
    }

    /// As [`crate::Vp::set_registers`].
    ///
    /// # Errors
    /// The guest is running, has no such VP, or the VP refuses a value.
    pub fn set_registers(&self, state: Box<DebuggerVpState>) -> Result<(), Error> {
        wait!(self.debugger, self.inner.set_registers(state))
    }

    /// As [`crate::Vp::reg`].
    ///
    /// # Errors
    /// Those of [`registers`](Self::registers), and the VP has no such register.
    pub fn reg(&self, name: &str) -> Result<u64, Error> {
        wait!(self.debugger, self.inner.reg(name))
    }

    /// As [`crate::Vp::set_reg`].
    ///
    /// # Errors
    /// Those of [`reg`](Self::reg) and [`set_registers`](Self::set_registers).
    pub fn set_reg(&self, name: &str, value: u64) -> Result<(), Error> {
        wait!(self.debugger, self.inner.set_reg(name, value))
    }

    /// As [`crate::Vp::pc`].
    ///
    /// # Errors
    /// Those of [`registers`](Self::registers).
    pub fn pc(&self) -> Result<u64, Error> {
        wait!(self.debugger, self.inner.pc())
    }

    /// As [`crate::Vp::arg`].
    ///
    /// # Errors
    /// Those of [`registers`](Self::registers), and the VP executes no 64-bit code.
    pub fn arg(&self, number: u32) -> Result<u64, Error> {
        wait!(self.debugger, self.inner.arg(number))
    }

    /// As [`crate::Vp::read`].
    ///
    /// # Errors
    /// The guest is running, or not all bytes can be read.
    pub fn read<'a, T: Scalar>(&self, place: impl Into<Place<'a>>) -> Result<T, Error> {
        wait!(self.debugger, self.inner.read(place))
    }

    /// As [`crate::Vp::read_bytes`].
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn read_bytes<'a>(
        &self,
        place: impl Into<Place<'a>>,
        len: usize,
    ) -> Result<Vec<u8>, Error> {
        wait!(self.debugger, self.inner.read_bytes(place, len))
    }

    /// As [`crate::Vp::read_struct`].
    ///
    /// # Errors
    /// Those of [`read`](Self::read), no symbols are loaded, or they have no such type.
    pub fn read_struct<'a>(
        &self,
        type_name: &str,
        place: impl Into<Place<'a>>,
    ) -> Result<Value, Error> {
        wait!(self.debugger, self.inner.read_struct(type_name, place))
    }

    /// As [`crate::Vp::write`].
    ///
    /// # Errors
    /// The guest is running, or a byte has no memory.
    pub fn write<'a, T: Scalar>(&self, place: impl Into<Place<'a>>, value: T) -> Result<(), Error> {
        wait!(self.debugger, self.inner.write(place, value))
    }

    /// As [`crate::Vp::write_bytes`].
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub fn write_bytes<'a>(&self, place: impl Into<Place<'a>>, bytes: &[u8]) -> Result<(), Error> {
        wait!(self.debugger, self.inner.write_bytes(place, bytes))
    }
}
