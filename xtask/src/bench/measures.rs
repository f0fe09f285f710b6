//! The measures of one server.

use super::cores::Core;
use super::cores::Pinned;
use super::echo;
use super::report::quantile;
use super::rsp::Client;
use super::rsp::unescaped;
use super::servers::Server;
use anyhow::bail;
use std::time::Duration;
use std::time::Instant;

/// The time that one measure of one server takes in a round.
const BATCH: Duration = Duration::from_millis(150);

/// The guest memory that is read: 8 MiB from the load address of the demo guest, whose virtual addresses equal the physical ones.
const MEMORY_START: u64 = 1 << 20;
const MEMORY_END: u64 = 9 << 20;

/// A clock tick of Linux in `/proc`, in seconds.
const TICK: f64 = 0.01;

/// The median time of `operation` in microseconds, over one batch.
pub(super) fn micros(
    client: &mut Client,
    mut operation: impl FnMut(&mut Client) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    let end = Instant::now() + BATCH;
    while times.is_empty() || Instant::now() < end {
        let start = Instant::now();
        operation(client)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(quantile(&times, 0.5))
}

/// Sends a packet that has to succeed. An error takes no time and would look fast.
pub(super) fn request(payload: &str) -> impl FnMut(&mut Client) -> anyhow::Result<()> {
    let payload = payload.to_owned();
    move |client| {
        let reply = client.request(&payload)?;
        if reply.is_empty() || reply[0] == b'E' {
            bail!(
                "`{payload}` was answered `{}`",
                String::from_utf8_lossy(reply)
            );
        }
        Ok(())
    }
}

/// The round trip to the echo server on another core, with a reply of the given number of bytes.
pub(super) fn floor(client: &mut Client, size: usize) -> anyhow::Result<f64> {
    let _apart = Pinned::to(Core::First)?;
    micros(client, request(&echo::request(size)))
}

/// The round trip to the echo server on its own core, where neither process has to wake another core.
pub(super) fn floor_on_one_core(client: &mut Client, size: usize) -> anyhow::Result<f64> {
    let _together = Pinned::to(Core::Last)?;
    micros(client, request(&echo::request(size)))
}

/// The rate of the echo server in megabytes of guest memory per second. Its replies are as long as replies to reads of `size` bytes.
pub(super) fn bulk_floor(
    client: &mut Client,
    encoding: Encoding,
    size: usize,
) -> anyhow::Result<f64> {
    let reply = match encoding {
        Encoding::Hex => size * 2,
        Encoding::Binary => size,
    };
    let micros = floor(client, reply)?;
    Ok(f64::from(u32::try_from(size)?) / micros)
}

/// A single step of the current thread.
pub(super) fn step(client: &mut Client) -> anyhow::Result<()> {
    let reply = client.request("s")?;
    if !matches!(reply.first(), Some(b'T' | b'S')) {
        bail!("`s` was answered `{}`", String::from_utf8_lossy(reply));
    }
    Ok(())
}

/// The encoding of memory in a reply.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Encoding {
    /// `m`: two hex digits for each byte.
    Hex,
    /// `x`: bytes, escaped.
    Binary,
}

impl Encoding {
    fn read(self, client: &mut Client, address: u64, size: usize) -> anyhow::Result<usize> {
        match self {
            Self::Hex => Ok(client.request(&format!("m{address:x},{size:x}"))?.len() / 2),
            Self::Binary => {
                let reply = client.request(&format!("x{address:x},{size:x}"))?;
                match reply.split_first() {
                    // The reply to `x` begins with `b`. An escape takes two bytes and stands for one byte.
                    Some((b'b', data)) => Ok(data.len() - memchr::memchr_iter(b'}', data).count()),
                    _ => bail!("`x` was answered `{}`", String::from_utf8_lossy(reply)),
                }
            }
        }
    }

    /// The first bytes of guest memory, decoded. They show that both servers read the same memory.
    pub(super) fn sample(self, client: &mut Client) -> anyhow::Result<Vec<u8>> {
        let size = 256;
        Ok(match self {
            Self::Hex => {
                let reply = client.request(&format!("m{MEMORY_START:x},{size:x}"))?;
                let digits = unescaped(reply);
                digits
                    .chunks_exact(2)
                    .map(|pair| {
                        let text = std::str::from_utf8(pair)?;
                        Ok(u8::from_str_radix(text, 16)?)
                    })
                    .collect::<anyhow::Result<_>>()?
            }
            Self::Binary => {
                let reply = client.request(&format!("x{MEMORY_START:x},{size:x}"))?;
                match reply.split_first() {
                    Some((b'b', data)) => unescaped(data),
                    _ => bail!("`x` was answered `{}`", String::from_utf8_lossy(reply)),
                }
            }
        })
    }

    /// The rate in megabytes per second, with packets for `size` bytes each.
    pub(super) fn throughput(self, client: &mut Client, size: usize) -> anyhow::Result<f64> {
        let step = u64::try_from(size)?;
        let mut address = MEMORY_START;
        let mut bytes = 0;
        let start = Instant::now();
        while start.elapsed() < BATCH {
            let got = self.read(client, address, size)?;
            // If escapes fill the packet, `x` may return fewer bytes.
            if got == 0 || (self == Self::Hex && got != size) {
                bail!("the server sent {got} bytes instead of {size}");
            }
            bytes += got;
            address += step;
            if address + step > MEMORY_END {
                address = MEMORY_START;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let megabytes = bytes as f64 / 1e6;
        Ok(megabytes / start.elapsed().as_secs_f64())
    }

    /// The sizes to try, up to the largest reply of the server.
    pub(super) fn sizes(self, packet_size: usize) -> Vec<usize> {
        let most = match self {
            Self::Hex => packet_size.saturating_sub(4) / 2,
            Self::Binary => packet_size.saturating_sub(5),
        };
        let mut sizes: Vec<usize> = [2048, 4096, 16 << 10, 60 << 10, 120 << 10]
            .into_iter()
            .filter(|size| *size < most)
            .collect();
        sizes.push(most);
        sizes
    }
}

/// Two times: from the connection to the first reply to `?`, and to the last reply that GDB asks for. The guest runs before and after.
pub(super) fn attach(server: &Server) -> anyhow::Result<(f64, f64)> {
    let start = Instant::now();
    let mut client = server.client()?;
    client.request("?")?;
    let first = start.elapsed().as_secs_f64() * 1e6;
    client.detach()?;

    let start = Instant::now();
    let mut client = Client::open(server.address())?;
    client.attach_like_gdb()?;
    let whole = start.elapsed().as_secs_f64() * 1e6;
    client.detach()?;
    Ok((first, whole))
}

/// The times from Ctrl-C to the stop reply, in microseconds.
pub(super) fn interrupts(client: &mut Client, times: u32) -> anyhow::Result<Vec<f64>> {
    let mut latencies = Vec::new();
    for _ in 0..times {
        client.send("c")?;
        // After this time every vCPU is in the guest. A guest that stops by itself would make the figure wrong.
        if client.wait(Duration::from_millis(5))? {
            bail!("the guest stopped by itself");
        }
        let start = Instant::now();
        client.interrupt()?;
        let reply = client.reply()?;
        if !matches!(reply.first(), Some(b'T' | b'S')) {
            bail!("Ctrl-C was answered `{}`", String::from_utf8_lossy(reply));
        }
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}

/// The CPU time of a server, in percent of a core, while an attached client sends nothing and the guest is stopped.
pub(super) fn idle_cpu(server: &Server, client: &mut Client) -> anyhow::Result<f64> {
    let before = server.cpu_ticks()?;
    let start = Instant::now();
    if client.wait(Duration::from_secs(3))? {
        bail!("the server sent a packet without a request");
    }
    let ticks = u32::try_from(server.cpu_ticks()? - before)?;
    Ok(f64::from(ticks) * TICK / start.elapsed().as_secs_f64() * 100.0)
}

/// Runs the guest to `address` and removes the breakpoint, so that both servers step the same instructions.
pub(super) fn run_to(client: &mut Client, address: u64) -> anyhow::Result<()> {
    for packet in [
        format!("Z1,{address:x},1"),
        "c".to_owned(),
        format!("z1,{address:x},1"),
    ] {
        request(&packet)(client)?;
    }
    Ok(())
}
