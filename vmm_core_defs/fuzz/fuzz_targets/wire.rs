//! No bytes make a side of a connection panic, and what the VMM accepts from a debugger can be sent again and is the same then.
//!
//! The first byte selects the side, and the others are a stream of frames.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::target::Target;
use vmm_core_defs::wire::Client;
use vmm_core_defs::wire::Frame;
use vmm_core_defs::wire::Frames;
use vmm_core_defs::wire::Received;
use vmm_core_defs::wire::Server;
use vmm_core_defs::wire::accept;

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Frames::new(1 << 16);
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let space = frames.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        frames.filled(count);
        bytes = &bytes[count..];
        while let Some(frame) = frames.next_frame() {
            found.push(frame);
        }
    }
    found
}

fn debug(message: &DebugMessage) -> String {
    format!("{message:?}")
}

fuzz_target!(|bytes: &[u8]| {
    let Some((side, stream)) = bytes.split_first() else {
        return;
    };
    let (target, mut vmm) = mesh::channel();
    let mut server = Server::new(Target::from(target));
    let mut client = Client::default();
    // Requests 1 to 3, for the answers.
    let session = vmm_core_defs::session::DebugSession::begin(Target::from(mesh::channel().0)).id();
    for request in [
        DebugRequest::Status(mesh::rpc::Rpc::detached(())),
        DebugRequest::Resume(mesh::rpc::Rpc::detached(
            vmm_core_defs::debug_rpc::ResumeRequest::every(vmm_core_defs::debug_rpc::VpAction::Run),
        )),
        DebugRequest::GetVpState(mesh::rpc::Rpc::detached(vmm_core_defs::addr::VpIndex::BSP)),
    ] {
        let _ = client.send(DebugMessage::InSession(session, request));
    }
    for frame in frames(stream) {
        match side % 3 {
            0 => {
                let received = server.received(frame);
                let Ok(message) = vmm.try_recv() else {
                    continue;
                };
                assert!(matches!(received, Received::Pending(_)));
                let text = debug(&message);
                let mut again = Client::default();
                let sent = again.send(message).expect("as long as it was");
                let whole = [&sent.head[..], &sent.tail[..]].concat();
                let mut second = frames(&whole);
                let (target, mut vmm) = mesh::channel();
                let mut server = Server::new(Target::from(target));
                if let Some(frame @ Frame::Message(_)) = second.pop() {
                    let _ = server.received(frame);
                    let message = vmm.try_recv().expect("understood again");
                    assert_eq!(debug(&message), text);
                }
            }
            1 => {
                if let Ok(answered) = client.received(frame) {
                    let _ = answered.deliver();
                }
            }
            _ => {
                if let Frame::Message(message) = frame {
                    let _ = accept(message);
                }
            }
        }
    }
});
