//! `trapgate rpc`: requests to the guest of a running VMM as lines of JSON, for scripts in any language.

mod methods;

use crate::cli::rpc_args::RpcArgs;
use crate::exit_status::ExitStatus;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use mesh::rpc::RpcError;
use mesh::rpc::RpcSend as _;
use methods::BadRequest;
use pal_async::DefaultPool;
use pal_async::task::Spawn as _;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::io::BufRead as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use thiserror::Error;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::session::DebugSession;

/// Why the program ends before all requests are answered.
#[derive(Debug, Error)]
pub(crate) enum RpcFailure {
    /// Nobody listens.
    #[error("cannot connect to {}; give the path that the VMM got with --rpc", path.display())]
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The VMM has refused the session.
    #[error("no session with the VMM")]
    Attach(#[source] DebugError),
    /// The VMM has closed the connection.
    #[error("the VMM has closed the connection; its log says why (it serves 8 programs at a time)")]
    Closed,
    /// The requests cannot be read.
    #[error("cannot read the requests from standard input")]
    Input(#[source] io::Error),
}

/// A request as a line of JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    id: Option<Value>,
    method: String,
    #[serde(default)]
    params: Value,
}

/// An answer as a line of JSON.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Result(Value),
    Error(String),
}

/// Makes the requests, and prints the answers.
pub(crate) fn rpc(args: &RpcArgs) -> Result<ExitStatus, RpcFailure> {
    let path = &args.socket;
    let failed = |source| RpcFailure::Connect {
        path: path.clone(),
        source,
    };
    if args.method.as_deref() == Some("help") {
        methods::NAMES.iter().for_each(|name| crate::say(name));
        return Ok(ExitStatus::Success);
    }
    let socket = UnixStream::connect(path).map_err(failed)?;
    let (thread, driver) = DefaultPool::spawn_on_thread("rpc");
    let (target, connection) = debug_wire::connect(&driver, socket).map_err(failed)?;
    let connection = driver.spawn("connection", connection.run());
    let if_lost = DetachAction::from(args.if_lost);
    let attached = pal_async::local::block_on(DebugSession::attach(&target, if_lost));
    drop(target);
    let session = match attached {
        Ok(attached) => attached.session,
        Err(RpcError::Call(error)) => return Err(RpcFailure::Attach(error)),
        Err(RpcError::Channel(_)) => return Err(RpcFailure::Closed),
    };
    let all_good = match &args.method {
        Some(method) => one(&session, method, &args.params),
        None => lines(&session)?,
    };
    // As when the program is killed, but the VMM has done it when the program ends: the next program can attach.
    let detached = session.call_failable(DebugRequest::Detach, if_lost.unless_held());
    // An error says that the guest has ended, or that a request has ended the session.
    let _ = pal_async::local::block_on(detached);
    drop(session);
    drop(connection);
    drop(driver);
    let _ = thread.join();
    Ok(match all_good {
        true => ExitStatus::Success,
        false => ExitStatus::Failed,
    })
}

/// One request from the command line. Returns whether it had a result.
fn one(session: &DebugSession, method: &str, params: &str) -> bool {
    let request = serde_json::from_str(params)
        .map_err(BadRequest::Json)
        .map(|params| Request {
            id: None,
            method: method.to_owned(),
            params,
        });
    print(pal_async::local::block_on(answer(session, request)))
}

/// Requests from standard input. Returns whether each had a result.
fn lines(session: &DebugSession) -> Result<bool, RpcFailure> {
    // The answers are printed while this thread waits for the next line.
    let (sender, mut answers) = futures::channel::mpsc::unbounded::<BoxFuture<'static, Answer>>();
    let printer = std::thread::spawn(move || {
        pal_async::local::block_on(async {
            let mut open = FuturesUnordered::new();
            let mut all_good = true;
            let mut more = true;
            while more || !open.is_empty() {
                // merge
                futures::select_biased! {
                    answer = open.select_next_some() => all_good &= print(answer),
                    next = answers.next() => match next {
                        Some(answer) => open.push(answer),
                        None => more = false,
                    },
                }
            }
            all_good
        })
    });
    for line in io::stdin().lock().lines() {
        let line = line.map_err(RpcFailure::Input)?;
        if line.trim().is_empty() {
            continue;
        }
        let request = serde_json::from_str(&line).map_err(BadRequest::Json);
        // The request is sent here, so requests are sent in the order of their lines.
        let _ = sender.unbounded_send(answer(session, request));
    }
    drop(sender);
    Ok(printer.join().unwrap_or(false))
}

/// Sends a request, and returns its answer.
fn answer(
    session: &DebugSession,
    request: Result<Request, BadRequest>,
) -> BoxFuture<'static, Answer> {
    let (id, sent) = match request {
        Ok(request) => {
            let sent = methods::send(session, &request.method, request.params);
            (request.id, sent)
        }
        Err(error) => (None, Err(error)),
    };
    async move {
        let outcome = match sent {
            Ok(answer) => answer.await,
            Err(error) => Err(error.to_string()),
        };
        let outcome = outcome.map_or_else(Outcome::Error, Outcome::Result);
        Answer { id, outcome }
    }
    .boxed()
}

/// Prints an answer, and returns whether it is a result.
fn print(answer: Answer) -> bool {
    match serde_json::to_string(&answer) {
        Ok(line) => crate::say(&line),
        Err(error) => tracing::error!(%error, "an answer cannot be printed as JSON"),
    }
    matches!(answer.outcome, Outcome::Result(_))
}
