//! Refuses a client with a text that says why.

use crate::connection::Connection;
use crate::connection::Written;
use crate::deadline::Deadline;
use std::fmt::Write as _;

/// Sends the reason to a client that has sent a packet, and waits up to `deadline` until the client has closed its end.
///
/// GDB shows the text as the failure of its first request. The text is also readable in a plain terminal.
pub(crate) async fn refuse(mut connection: Connection, deadline: Deadline, why: &str) {
    let Connection { incoming, outgoing } = &mut connection;
    outgoing.queue(error_packet(why));
    let polite = async {
        if !matches!(outgoing.flush().await, Ok(Written::All)) || outgoing.close().await.is_err() {
            return;
        }
        // Closing a socket with unread bytes resets the connection, and then the client may not receive the text.
        while matches!(incoming.read().await, Ok([_, ..])) {}
    };
    deadline.limit(polite).await;
}

/// An acknowledgement of the client's first packet, and an error as the reply to it (GDB manual, node "Standard
/// Replies").
fn error_packet(why: &str) -> Vec<u8> {
    // These characters would end or change the packet.
    let text: String = why
        .chars()
        .filter(|c| matches!(c, ' '..='~') && !"#$}*".contains(*c))
        .collect();
    let body = format!("E.{text}");
    let checksum = body.bytes().fold(0_u8, u8::wrapping_add);
    let mut packet = format!("+${body}#");
    let _ = write!(packet, "{checksum:02x}");
    packet.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_well_formed_whatever_the_text() {
        assert_eq!(error_packet("no"), b"+$E.no#50");
        assert_eq!(error_packet("n#$}*\n\u{fc}o"), b"+$E.no#50");
    }
}
