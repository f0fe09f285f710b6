//! The command line of `trapgate rpc`.

use super::debug_args::OnDisconnect;
use clap::Args;
use std::path::PathBuf;

/// How scripts use the command.
pub(super) const RPC_HELP: &str = "\
With METHOD, the command makes one request and prints one line of JSON: {\"result\":...} or {\"error\":\"...\"}.
Without METHOD, each line of the input is a request, {\"method\":\"...\",\"params\":...}, and each answer is a line of the
output. A member \"id\" of a request is repeated in its answer. Requests are sent in the order of their lines; a `resume`
is answered at the next stop, and other answers may come before. The session ends with the input, when all requests are
answered. The guest then runs on, or does what --if-lost says. A guest that is held at its first instruction stays held
until a request resumes it: `resume`, or `detach` with \"Resume\".

Exit codes:
  0    every request was answered with a result
  1    a request was answered with an error
  2    bad command line or input, or no session with the VMM; the message says what to do";

/// The VMM and the request.
#[derive(Debug, Args)]
pub(crate) struct RpcArgs {
    /// The socket of a VMM that was started with --rpc: unix:PATH
    #[arg(long, value_name = "ADDR", value_parser = socket_path)]
    pub socket: PathBuf,
    /// What happens to the guest when the session ends, also when this program is killed
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnDisconnect::Resume)]
    pub if_lost: OnDisconnect,
    /// The request, such as read_memory. `trapgate rpc --socket ADDR help` lists all
    pub method: Option<String>,
    /// The parameters of the request as JSON
    #[arg(requires = "method", default_value = "null", hide_default_value = true)]
    pub params: String,
}

/// `unix:PATH`, as the VMM takes it at `--rpc`.
fn socket_path(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("write unix:PATH, the path of the VMM's socket file".to_owned()),
    }
}
