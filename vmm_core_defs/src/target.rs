//! The receiver of a debugger's messages: a VM, in this process or behind a socket.

use crate::debug_rpc::DebugMessage;
use mesh::Sender;
use mesh::rpc::RpcSend;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// A VM that can be debugged. A [`mesh::Sender`] leads to a VM in this process.
pub trait DebugTarget: fmt::Debug + Send + Sync {
    /// Sends a message. Messages arrive in the order in which they were sent. If the VM is gone, the message is dropped, which fails its call.
    fn send(&self, message: DebugMessage);

    /// Whether the VM is gone. Once true, it stays true.
    fn is_closed(&self) -> bool;

    /// Waits until the VM is gone. A target that cannot tell waits for ever, as this does; a server of connections then sees the end at its next work.
    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

impl DebugTarget for Sender<DebugMessage> {
    fn send(&self, message: DebugMessage) {
        Self::send(self, message);
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Self::closed(self))
    }
}

/// A [`DebugTarget`] that may be cloned. Clones lead to the same VM.
#[derive(Debug, Clone)]
pub struct Target(Arc<dyn DebugTarget>);

impl Target {
    /// Sends a message, as [`DebugTarget::send`] does.
    pub fn send(&self, message: DebugMessage) {
        self.0.send(message);
    }

    /// Whether the VM is gone, as [`DebugTarget::is_closed`] says.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the VM is gone, as [`DebugTarget::closed`] does.
    pub fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.closed()
    }
}

impl<T: DebugTarget + 'static> From<T> for Target {
    fn from(target: T) -> Self {
        Self(Arc::new(target))
    }
}

impl RpcSend for &Target {
    type Message = DebugMessage;

    fn send_rpc(self, message: DebugMessage) {
        self.send(message);
    }
}
