//! The methods of `trapgate rpc`: each is a request of `vmm_core_defs`, with its input and its answer in their JSON forms.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use mesh::rpc::RpcError;
use mesh::rpc::RpcSend as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write as _;
use thiserror::Error;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DebugRpc;
use vmm_core_defs::session::DebugSession;

/// A request that is not sent.
#[derive(Debug, Error)]
pub(super) enum BadRequest {
    #[error("not JSON, or another member than id, method and params: {0}")]
    Json(serde_json::Error),
    #[error("there is no method `{0}`; write one of: {names}", names = NAMES.join(", "))]
    UnknownMethod(String),
    #[error(
        "the parameters of `{method}` are wrong: {error}; the Guide's page \"Programs\" has examples"
    )]
    Params {
        method: &'static str,
        error: serde_json::Error,
    },
    #[error("`{0}` is no hex text of bytes; write two digits for each byte")]
    Hex(String),
}

/// The result of a request, or the text of its error.
pub(super) type Answer = BoxFuture<'static, Result<Value, String>>;

macro_rules! methods {
    ($($name:literal $request:ident,)*) => {
        /// The names of all methods.
        pub(super) const NAMES: &[&str] = &["read_memory", "write_memory", $($name),*];

        /// The requests in this list, in its order.
        #[cfg(test)]
        const REQUESTS: &[&str] = &["ReadMemory", "WriteMemory", $(stringify!($request)),*];

        /// Sends a request.
        pub(super) fn send(session: &DebugSession, method: &str, params: Value) -> Result<Answer, BadRequest> {
            match method {
                // Bytes are hex text.
                "read_memory" => {
                    let (address, len) = input("read_memory", params)?;
                    let bytes = called(session, DebugRequest::ReadMemory, (address, len));
                    Ok(async { bytes.await.map(|bytes| Value::String(to_hex(&bytes))) }.boxed())
                }
                "write_memory" => {
                    let (address, hex): (GuestAddress, String) = input("write_memory", params)?;
                    let bytes = from_hex(&hex).ok_or(BadRequest::Hex(hex))?;
                    Ok(json(called(session, DebugRequest::WriteMemory, (address, bytes))))
                }
                $($name => {
                    let input = input($name, params)?;
                    Ok(json(called(session, DebugRequest::$request, input)))
                })*
                other => Err(BadRequest::UnknownMethod(other.to_owned())),
            }
        }
    };
}

methods! {
    "detach" Detach,
    "resume" Resume,
    "break" Break,
    "set_debug_state" SetDebugState,
    "breakpoints" Breakpoints,
    "step_interrupts" StepInterrupts,
    "get_vp_state" GetVpState,
    "set_vp_state" SetVpState,
    "redirect" Redirect,
    "stop_reason" StopReason,
    "read_msr" ReadMsr,
    "write_msr" WriteMsr,
    "translate" Translate,
    "mapped_pages" MappedPages,
    "memory_region" MemoryRegion,
    "ram_ranges" RamRanges,
    "nmi" Nmi,
    "freeze_time" FreezeTime,
    "status" Status,
    "stop_on" StopOn,
    "reset" Reset,
    "set_conditions" SetConditions,
    "breakpoint_hits" BreakpointHits,
    "command_output" CommandOutput,
    "start_trace" StartTrace,
    "stop_trace" StopTrace,
    "trace_status" TraceStatus,
    "switch_tracepoint" SwitchTracepoint,
    "find_frame" FindFrame,
}

fn input<I: DeserializeOwned>(method: &'static str, params: Value) -> Result<I, BadRequest> {
    serde_json::from_value(params).map_err(|error| BadRequest::Params { method, error })
}

/// The request is sent when this returns.
fn called<I: Send + 'static, R: Send + 'static>(
    session: &DebugSession,
    request: impl FnOnce(DebugRpc<I, R>) -> DebugRequest,
    input: I,
) -> BoxFuture<'static, Result<R, String>> {
    let answer = session.call_failable(request, input);
    async {
        answer.await.map_err(|error| match error {
            RpcError::Call(error) => error.to_string(),
            RpcError::Channel(_) => {
                "the VMM is gone, or has closed the connection; its log says why".to_owned()
            }
        })
    }
    .boxed()
}

fn json<R: Serialize + 'static>(answer: BoxFuture<'static, Result<R, String>>) -> Answer {
    async { serde_json::to_value(answer.await?).map_err(|error| error.to_string()) }.boxed()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|char| char.to_digit(16)).collect();
    let (pairs, []) = digits.as_deref()?.as_chunks() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(high << 4 | low).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_request_is_a_method_by_its_name_in_lower_case() {
        let all: BTreeSet<_> = DebugRequest::NAMES.iter().collect();
        assert_eq!(all, REQUESTS.iter().collect());
        for (name, request) in NAMES.iter().zip(REQUESTS) {
            assert_eq!(name.replace('_', ""), request.to_lowercase());
        }
    }

    #[test]
    fn bytes_are_hex_text_both_ways() {
        assert_eq!(to_hex(&[0, 0xcc, 0x0f]), "00cc0f");
        assert_eq!(from_hex("00cC0f"), Some(vec![0, 0xcc, 0x0f]));
        assert_eq!(from_hex(""), Some(Vec::new()));
        for wrong in ["0", "0g", "+1", "é0", " 00"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }
}
