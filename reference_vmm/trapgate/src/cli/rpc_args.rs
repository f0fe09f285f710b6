//! The command line of `trapgate rpc`.

use super::debug_args::OnDisconnect;
use clap::Args;
use debug_worker::ListenAddress;

/// How scripts use the command.
pub(super) const RPC_HELP: &str = "\
With METHOD, the command makes one request and prints one line of JSON: {\"result\":...} or {\"error\":\"...\"}.
Without METHOD, each line of the input is a request, {\"method\":\"...\",\"params\":...}, and each answer is a line of the
output. A member \"id\" of a request is repeated in its answer. Requests are sent in the order of their lines; a `resume`
is answered at the next stop, and other answers may come before. The session ends with the input, when all requests are
answered: the guest runs on.

Exit codes:
  0    every request was answered with a result
  1    a request was answered with an error
  2    bad command line or input, or no session with the VMM; the message says what to do";

/// The VMM and the request.
#[derive(Debug, Args)]
pub(crate) struct RpcArgs {
    /// The socket of a VMM that was started with --rpc: unix:PATH
    #[arg(long, value_name = "ADDR", value_parser = super::debug_args::socket_file)]
    pub socket: ListenAddress,
    /// What happens to the guest when this program is killed
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnDisconnect::Resume)]
    pub if_lost: OnDisconnect,
    /// The request, such as read_memory. `trapgate rpc --socket ADDR help` lists all
    pub method: Option<String>,
    /// The parameters of the request as JSON
    #[arg(requires = "method", default_value = "null", hide_default_value = true)]
    pub params: String,
}
