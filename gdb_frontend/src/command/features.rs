//! `qSupported`: the features of the client.

/// The features of the client that change replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientFeatures {
    /// The client understands the stop reason `swbreak`.
    pub swbreak: bool,
    /// The client understands the stop reason `hwbreak`.
    pub hwbreak: bool,
    /// The client understands `E.` with a text in every error reply.
    pub error_message: bool,
    /// The client expands run-length encoding, as GDB and LLDB do. Simple clients do not, but they announce features
    /// that they have copied from elsewhere. Therefore this is set only by features that only GDB uses, and by the
    /// packet that only LLDB sends.
    pub expands_runs: bool,
    /// The client is LLDB, which expects a reply to `k`, and uses registers in stop replies.
    pub lldb: bool,
    /// The client wants the list of threads in stop replies.
    pub threads_in_stop: bool,
    /// The client understands `E NN` with a text in hex behind it.
    pub error_strings: bool,
}

impl ClientFeatures {
    /// `qSupported [:gdbfeature [;gdbfeature]...]`: each feature is `name=value`, `name+`, `name-` or `name?`. The
    /// manual requires that unknown features are ignored.
    pub(super) fn parse(arguments: &[u8]) -> Self {
        let mut features = Self::default();
        for feature in arguments
            .strip_prefix(b":")
            .unwrap_or_default()
            .split(|&byte| byte == b';')
        {
            match feature {
                b"swbreak+" => features.swbreak = true,
                b"hwbreak+" => features.hwbreak = true,
                b"error-message+" => features.error_message = true,
                b"qRelocInsn+" | b"QThreadEvents+" | b"no-resumed+" => features.expands_runs = true,
                _ => {}
            }
        }
        features
    }
}
