//! The worker's side: the process from its start to its end.

use super::INVITATION;
use super::TITLE;
use super::control;
use super::control::Control;
use super::control::ControlSocket;
use super::control::FromWorker;
use super::control::ToWorker;
use super::invitation::Invitation;
use super::invitation::Task;
use super::sandbox::SandboxProfile;
use crate::Evictor;
use crate::server::serve_after;
use anyhow::Context as _;
use futures::FutureExt as _;
use futures::select_biased;
use mesh::rpc::RpcSend as _;
use mesh::worker::WorkerRpc;
use pal_async::awake::awake;
use pal_async::local::LocalDriver;
use pal_async::local::block_with_io;
use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;

/// Runs this process as a worker if a VMM has started it as one, and does not return then. A program that uses [`WorkerHost`](super::WorkerHost) calls it first of all in `main`, before it
/// starts a thread or reads its arguments.
///
/// `begin_log` gets the setting that the VMM gave to [`WorkerHost::log`](super::WorkerHost::log). The log goes to standard error, which is the VMM's.
pub fn try_run_worker(begin_log: impl FnOnce(&str)) {
    if std::env::var_os(INVITATION).is_none() {
        return;
    }
    // No code of the worker sees the variable.
    let ended = temp_env::with_var_unset(INVITATION, || run(begin_log));
    std::process::exit(match ended {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("the debug worker has failed: {error:#}");
            1
        }
    });
}

fn run(begin_log: impl FnOnce(&str)) -> anyhow::Result<()> {
    // A worker without its VMM is of no use, also if it hangs.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::thread::set_name(&CString::new(TITLE)?)?;
    let control: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    let control = ControlSocket::from(control);
    let (invitation, descriptors) = match control::begun(&control) {
        Ok(received) => received,
        Err(error) => {
            begin_log("");
            return Err(error).context(
                "no VMM has started this process as its worker; run it without the variable TRAPGATE_WORKER_INVITATION",
            );
        }
    };
    let Invitation { log, task } = invitation;
    begin_log(&log);
    match task {
        None => {
            let sandbox = SandboxProfile::default().finalize();
            Ok(control::send(&control, &FromWorker::Ready(sandbox))?)
        }
        Some(task) => {
            let ended = block_with_io(async |driver| {
                work(driver, control.try_clone()?, task, descriptors).await
            });
            if let Err(error) = &ended {
                // The VMM sees the end of this process if it does not get the message.
                let _ = control::send(&control, &FromWorker::Failed(format!("{error:#}")));
            }
            ended
        }
    }
}

async fn work(
    driver: LocalDriver,
    control: ControlSocket,
    task: Task,
    mut descriptors: Vec<OwnedFd>,
) -> anyhow::Result<()> {
    // The number of cores is read from files, once.
    awake(|| Some(()));
    let debug: UnixStream = Task::debug(&mut descriptors)?;
    let (target, connection) = debug_wire::connect(&driver, debug)?;
    let profile = SandboxProfile::of(&task);
    let parameters = task.parameters(descriptors, target.into())?;
    let evictor = parameters.listener.evictor();
    let (owner, requests) = mesh::channel();
    let answers = control.try_clone()?;
    let control = Control::new(&driver, control)?;
    let ready = || {
        let sandbox = profile.finalize();
        control::send(&answers, &FromWorker::Ready(sandbox))
    };
    let server = serve_after(driver.clone(), parameters, requests, ready);
    let vmm = obey(control, &owner, &evictor);
    let connection = async {
        if let Err(error) = connection.run().await {
            tracing::warn!(%error, "the debug worker ends");
        }
    };
    let mut server = pin!(server.fuse());
    let mut vmm = pin!(vmm.fuse());
    let mut connection = pin!(connection.fuse());
    let ended = loop {
        // If the VMM is gone or says so, the server ends its session. The answers come first: the VMM sends the last one before it says so.
        // merge
        select_biased! {
            ended = server => break ended,
            () = connection => {},
            () = vmm => {},
        }
        owner.send(WorkerRpc::Stop);
    };
    ended.context("the debug server cannot use its listening socket")
}

/// Does what the VMM says until the VMM is gone or the server has to end.
async fn obey(mut control: Control, owner: &mesh::Sender<WorkerRpc>, evictor: &Evictor) {
    loop {
        match control.receive().await {
            Ok(ToWorker::Inspect(id)) => {
                let state = owner.call(|rpc| WorkerRpc::Inspect(rpc.into()), ()).await;
                let fields = state.map(|state| {
                    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                    state.fields().map(owned).collect()
                });
                let Ok(fields) = fields else { return };
                if control.send(&FromWorker::State(id, fields)).await.is_err() {
                    return;
                }
            }
            Ok(ToWorker::Evict) => evictor.evict(),
            Ok(ToWorker::Stop | ToWorker::Begin(..)) | Err(_) => return,
        }
    }
}
