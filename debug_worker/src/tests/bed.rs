//! The test fixture: a server beside a fake VM on one thread, and a client with deadlines.

use super::fake_vm::FakeVm;
use super::transport::reach;
use crate::DebugListener;
use crate::DebuggerParameters;
use crate::Evictor;
use crate::Exposure;
use crate::ListenAddress;
use crate::SessionSettings;
use crate::serve;
use mesh::rpc::RpcSend;
use mesh::worker::WorkerRpc;
use pal_async::DefaultDriver;
use pal_async::DefaultPool;
use pal_async::local::block_on;
use pal_async::task::Spawn;
use pal_async::task::Task;
use socket2::SockRef;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// Long enough for a busy machine. A test in which this time passes has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Bed {
    pub(super) vm: FakeVm,
    pub(super) address: ListenAddress,
    pub(super) evictor: Evictor,
    owner: mesh::Sender<WorkerRpc>,
    vm_task: Option<Task<()>>,
    /// The VMM's side of the socket, if the VM is behind one.
    wire: Option<Task<()>>,
    server: Option<Task<std::io::Result<()>>>,
    /// Keeps the thread alive.
    driver: Option<DefaultDriver>,
    thread: Option<JoinHandle<()>>,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::with(SessionSettings::default())
    }

    pub(super) fn with(settings: SessionSettings) -> Self {
        let listener =
            DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Exposure::default()).unwrap();
        Self::with_listener(listener, settings)
    }

    pub(super) fn with_listener(listener: DebugListener, settings: SessionSettings) -> Self {
        Self::with_named_thread(listener, settings, "bed")
    }

    pub(super) fn with_named_thread(
        listener: DebugListener,
        settings: SessionSettings,
        name: &str,
    ) -> Self {
        Self::with_all(listener, settings, name, None)
    }

    /// A fixture whose server has an OpenMetrics endpoint.
    #[cfg(feature = "open-metrics")]
    pub(super) fn with_metrics(metrics: DebugListener) -> Self {
        let listener =
            DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Exposure::default()).unwrap();
        Self::with_all(listener, SessionSettings::default(), "bed", Some(metrics))
    }

    #[cfg_attr(not(feature = "open-metrics"), expect(unused_variables))]
    fn with_all(
        listener: DebugListener,
        settings: SessionSettings,
        name: &str,
        metrics: Option<DebugListener>,
    ) -> Self {
        let address = listener.local_addr();
        let evictor = listener.evictor();
        let (requests, vm_requests) = mesh::channel();
        let (owner, server_requests) = mesh::channel();
        let (thread, driver) = DefaultPool::spawn_on_thread(name);
        let vm = FakeVm::new();
        let vm_task = driver.spawn("vm", vm.clone().run(vm_requests));
        let (requests, wire) = reach(&driver, requests);
        let mut parameters = DebuggerParameters::new(listener, requests);
        parameters.settings = settings;
        #[cfg(feature = "open-metrics")]
        {
            parameters.metrics = metrics;
        }
        let server = driver.spawn("server", serve(driver.clone(), parameters, server_requests));
        Self {
            vm,
            address,
            evictor,
            owner,
            vm_task: Some(vm_task),
            wire,
            server: Some(server),
            driver: Some(driver),
            thread: Some(thread),
        }
    }

    /// A fixture with a session over a unix socket. The buffers of a unix socket are small and do not grow
    /// (net.core.wmem_default is 208 KiB), and sent bytes can be read at once.
    pub(super) fn with_unix_session(dir: &Path) -> (Self, Client) {
        Self::with_unix_session_and(dir, SessionSettings::default())
    }

    pub(super) fn with_unix_session_and(dir: &Path, settings: SessionSettings) -> (Self, Client) {
        let path = dir.join("gdb");
        let address = ListenAddress::Unix(path.clone());
        let listener = DebugListener::bind(&address, Exposure::default()).unwrap();
        let bed = Self::with_listener(listener, settings);
        let mut client = Client::new(UnixStream::connect(path).unwrap());
        client.start();
        (bed, client)
    }

    pub(super) fn connect(&self) -> Client {
        match &self.address {
            ListenAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                Client::new(stream)
            }
            ListenAddress::Unix(path) => Client::new(UnixStream::connect(path).unwrap()),
        }
    }

    /// A client that has attached to the guest and has switched acknowledgements off.
    pub(super) fn attach(&self) -> Client {
        let mut client = self.connect();
        client.start();
        client
    }

    /// As [`Bed::attach`], and the guest runs.
    pub(super) fn attach_and_continue(&self) -> Client {
        let mut client = self.attach();
        self.let_run(&mut client);
        client
    }

    pub(super) fn let_run(&self, client: &mut Client) {
        client.send("vCont;c");
        self.vm.wait_running();
        // The session waits a few turns for a refusal of the resume.
        self.settle();
    }

    pub(super) fn inspect(&self, field: &str) -> Option<String> {
        let pending = self.owner.call(|rpc| WorkerRpc::Inspect(rpc.into()), ());
        block_on(pending).unwrap().get(field).map(str::to_owned)
    }

    /// Waits until the server's inspection shows this value.
    pub(super) fn wait_for(&self, field: &str, value: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.inspect(field);
            if now.as_deref() == Some(value) {
                return;
            }
            assert!(Instant::now() < end, "{field} is still {now:?}");
        }
    }

    /// Runs the server's executor until it has polled its sockets and every task has had many turns.
    pub(super) fn settle(&self) {
        let driver = self.driver.as_ref().expect("present until dropped");
        block_on(driver.spawn("settle", async {
            for _ in 0..200 {
                let mut yielded = false;
                std::future::poll_fn(|cx| {
                    if std::mem::replace(&mut yielded, true) {
                        return Poll::Ready(());
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
            }
        }));
    }

    /// An answer of the VM reaches the server in the moment in which it is given, or when it has come over the socket.
    pub(super) fn answers_arrive(&self) {
        if self.wire.is_some() {
            self.settle();
        }
    }

    /// Tells the server to stop and waits until it has.
    pub(super) fn stop(&mut self) {
        self.owner.send(WorkerRpc::Stop);
        self.join();
    }

    /// Waits for the server to end.
    pub(super) fn join(&mut self) {
        block_on(self.server.take().expect("joined once")).unwrap();
    }

    /// Drops the server without a message, as an executor that goes away does.
    pub(super) fn drop_server(&mut self) {
        drop(self.server.take());
    }

    /// Drops the VM's side of the channel or of the socket.
    pub(super) fn drop_vm(&mut self) {
        if let Some(wire) = self.wire.take() {
            block_on(wire.cancel());
        }
        block_on(self.vm_task.take().expect("dropped once").cancel());
    }
}

/// Joins the thread, so that no test leaves it running.
impl Drop for Bed {
    fn drop(&mut self) {
        drop((self.server.take(), self.wire.take()));
        drop((self.vm_task.take(), self.driver.take()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server's thread panicked");
        }
    }
}

/// A client of the protocol. It sends no acknowledgement before [`Client::start`], and needs none afterwards.
pub(super) struct Client {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

pub(super) trait Stream: Read + Write + Send {
    fn socket(&self) -> SockRef<'_>;
}

impl Stream for TcpStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

impl Stream for UnixStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

impl Client {
    pub(super) fn new(stream: impl Stream + 'static) -> Self {
        stream.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        stream.socket().set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: Box::new(stream),
            received: Vec::new(),
        }
    }

    pub(super) fn start(&mut self) {
        assert_eq!(self.ask("QStartNoAckMode"), "OK");
        self.send_raw(b"+");
    }

    pub(super) fn socket(&self) -> SockRef<'_> {
        self.stream.socket()
    }

    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).unwrap();
    }

    pub(super) fn try_send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(super) fn send(&mut self, body: &str) {
        self.send_raw(packet(body).as_bytes());
    }

    pub(super) fn ask(&mut self, body: &str) -> String {
        self.send(body);
        self.reply()
    }

    /// The output of a `monitor` command.
    pub(super) fn monitor(&mut self, line: &str) -> String {
        self.send(&format!("qRcmd,{}", hex(line)));
        let mut text = String::new();
        loop {
            match self.reply().strip_prefix('O') {
                Some("K") => return text,
                Some(output) => text.push_str(&unhex(output)),
                None => panic!("output or OK"),
            }
        }
    }

    /// The body of the next packet, without acknowledgements and with run lengths as they are.
    pub(super) fn reply(&mut self) -> String {
        self.try_reply()
            .expect("a reply, not the end of the connection")
    }

    /// The next packet. `None` at the end of the connection.
    pub(super) fn try_reply(&mut self) -> Option<String> {
        loop {
            let start = self.received.iter().position(|&byte| byte == b'$');
            if let Some(start) = start
                && let Some(len) = self.received[start..].iter().position(|&byte| byte == b'#')
                && self.received.len() >= start + len + 3
            {
                let packet: Vec<u8> = self.received.drain(..start + len + 3).skip(start).collect();
                let body = String::from_utf8_lossy(&packet[1..len]).into_owned();
                return Some(body);
            }
            let mut buffer = vec![0; 64 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
        }
    }

    /// Waits for bytes that belong to no packet.
    pub(super) fn bytes_outside_packets(&mut self) -> Vec<u8> {
        assert!(self.received.is_empty(), "a packet is waiting");
        let mut buffer = vec![0; 16];
        let count = self.stream.read(&mut buffer).expect("bytes");
        buffer.truncate(count);
        buffer
    }

    /// Expects that the server closes the connection without another byte.
    pub(super) fn expect_closed(&mut self) {
        assert_eq!(self.try_reply(), None);
    }

    pub(super) fn half_close(&mut self) {
        self.socket().shutdown(Shutdown::Write).unwrap();
    }

    /// Disappears as a killed process with unread data does: the server sees a reset.
    pub(super) fn reset(self) {
        self.socket().set_linger(Some(Duration::ZERO)).unwrap();
    }
}

pub(super) fn packet(body: &str) -> String {
    let sum = body.bytes().fold(0_u8, u8::wrapping_add);
    format!("${body}#{sum:02x}")
}

/// Decodes text as `qRcmd` and `O` carry it.
pub(super) fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(hex: &str) -> String {
    let bytes = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}
