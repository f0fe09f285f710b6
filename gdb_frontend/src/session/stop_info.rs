//! The stop reason of each thread, for LLDB's `qThreadStopInfo` and `jThreadsInfo`.

use super::Core;
use super::Guest;
use super::pending::Pending;
use super::stop_reply;
use crate::framing::PacketWriter;
use crate::target::Resume;
use crate::target::ResumeAction;
use crate::target::StopReason;
use crate::target::TargetOp;
use crate::target::TargetReply;
use crate::target::Tid;

impl Core {
    /// `jThreadsInfo`: requests the stop reasons of all threads, one after the other.
    pub(super) fn threads_info(&mut self) {
        let first = self.threads.first();
        let list = "[".to_owned();
        self.ask_stop_reason(
            first,
            Pending::ThreadsInfo {
                thread: first,
                list,
            },
        );
    }

    /// Requests the stop reason of a thread. The reason in the last stop reply is used without a request.
    pub(super) fn ask_stop_reason(&mut self, thread: Tid, pending: Pending) {
        match self.guest {
            Guest::Stopped(stop) if stop.thread.unwrap_or(self.interrupt_thread) == thread => {
                self.complete(pending, TargetReply::StopReason(Some(stop.reason)));
            }
            _ => self.ask(TargetOp::StopReason { thread }, pending),
        }
    }

    /// Adds a thread to the list, and requests the next thread or sends the list.
    pub(super) fn add_thread_info(
        &mut self,
        thread: Tid,
        mut list: String,
        reason: Option<StopReason>,
        registers: &str,
        reply: &TargetReply,
    ) {
        let info = match reply {
            TargetReply::Text(text) => text,
            _ => "",
        };
        list.push_str(&stop_reply::json(reason, thread, info, registers));
        if let Some(next) = self.threads.after(thread) {
            list.push(',');
            return self.ask_stop_reason(next, Pending::ThreadsInfo { thread: next, list });
        }
        list.push(']');
        let mut packet = PacketWriter::with_capacity(list.len());
        packet.binary(list.as_bytes());
        self.outbox.packet(packet.finish());
    }

    /// The thread in the next stop reply if the stop concerns no single thread. While GDB steps one thread alone, GDB
    /// asserts that the next stop reply names this thread.
    pub(super) fn interrupt_thread_after(&self, resume: &Resume) -> Tid {
        let goes = |thread: Tid| {
            let action = resume.actions.iter().find(|(named, _)| *named == thread);
            action.map_or(resume.others, |(_, action)| *action) != ResumeAction::Stay
        };
        let mut named = resume.actions.iter().map(|(thread, _)| *thread);
        match goes(self.current) {
            true => self.current,
            false => named.find(|thread| goes(*thread)).unwrap_or(self.current),
        }
    }
}
