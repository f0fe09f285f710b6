//! What callers may rely on in sockets.

use futures::AsyncReadExt;
use futures::AsyncWriteExt;
use futures::FutureExt;
use pal_async::DefaultDriver;
use pal_async::async_test;
use pal_async::socket::Listener;
use pal_async::socket::PolledSocket;
use pal_async::task::Spawn;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;

fn pair(driver: &DefaultDriver) -> (PolledSocket<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (PolledSocket::new(driver, ours).unwrap(), theirs)
}

async fn accepts<L: Listener>(
    driver: &DefaultDriver,
    listener: L,
    connect: impl Fn(&L) -> Box<dyn Write>,
) where
    L::Socket: Unpin,
{
    let mut listener = PolledSocket::new(driver, listener).unwrap();
    assert!(
        listener.accept().now_or_never().is_none(),
        "nobody is there yet"
    );
    for round in 0..3 {
        let mut client = connect(listener.get());
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = PolledSocket::new(driver, socket).unwrap();
        client.write_all(&[round]).unwrap();
        let mut byte = [0];
        socket.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [round]);
    }
}

#[async_test]
async fn listeners_accept_again_and_again(driver: DefaultDriver) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    accepts(&driver, tcp, |l| {
        Box::new(TcpStream::connect(l.local_addr().unwrap()).unwrap())
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    accepts(&driver, unix, |_| {
        Box::new(UnixStream::connect(&path).unwrap())
    })
    .await;
}

#[async_test]
async fn a_backlog_is_accepted_whole(driver: DefaultDriver) {
    let mut listener =
        PolledSocket::new(&driver, TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let address = listener.get().local_addr().unwrap();
    let _clients: Vec<_> = (0..5)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for _ in 0..5 {
        listener.accept().await.unwrap();
    }
    assert!(listener.accept().now_or_never().is_none());
}

#[async_test]
async fn short_reads_lose_nothing_that_comes_later(driver: DefaultDriver) {
    let (mut ours, mut theirs) = pair(&driver);
    let mut buf = [0; 64];
    for round in 0..100 {
        // Whichever is first, the read or the write: the edge is not missed.
        if round % 2 == 0 {
            assert!(ours.read(&mut buf).now_or_never().is_none());
        }
        theirs.write_all(&[round, round]).unwrap();
        assert_eq!(
            ours.read(&mut buf[..1]).await.unwrap(),
            1,
            "a full read leaves the rest"
        );
        assert_eq!(ours.read(&mut buf[1..]).await.unwrap(), 1);
        assert_eq!(buf[..2], [round, round]);
    }
}

#[async_test]
async fn the_end_is_seen_however_it_comes(driver: DefaultDriver) {
    let mut buf = [0; 64];
    // With the last data, in one edge.
    let (mut ours, mut theirs) = pair(&driver);
    theirs.write_all(b"bye").unwrap();
    drop(theirs);
    assert_eq!(ours.read(&mut buf).await.unwrap(), 3);
    assert_eq!(ours.read(&mut buf).await.unwrap(), 0);
    assert_eq!(
        ours.read(&mut buf).await.unwrap(),
        0,
        "and it stays the end"
    );
    // While nobody has anything to read.
    let (mut ours, theirs) = pair(&driver);
    let reader = driver.spawn("reader", async move { ours.read(&mut [0; 8]).await });
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(reader.await.unwrap(), 0);
}

#[async_test]
async fn a_half_closed_peer_still_gets_the_reply(driver: DefaultDriver) {
    let (mut ours, mut theirs) = pair(&driver);
    theirs.write_all(b"?").unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let mut request = Vec::new();
    ours.read_to_end(&mut request).await.unwrap();
    ours.write_all(b"reply").await.unwrap();
    ours.close().await.unwrap();
    let mut reply = String::new();
    theirs.read_to_string(&mut reply).unwrap();
    assert_eq!((request.as_slice(), reply.as_str()), (&b"?"[..], "reply"));
}

#[async_test]
async fn a_full_socket_waits_for_its_reader(driver: DefaultDriver) {
    const SIZE: usize = 4 << 20;
    let (ours, mut theirs) = pair(&driver);
    let (mut read, mut write) = ours.split();
    let data: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
    assert!(
        write.write_all(&data).now_or_never().is_none(),
        "no socket buffers all of it"
    );
    drop(write);
    // Some of it is in the socket; the read half still works, and so does a reader on the other side.
    theirs.write_all(b"x").unwrap();
    assert_eq!(read.read(&mut [0; 8]).await.unwrap(), 1);

    let (ours, mut theirs) = pair(&driver);
    let (_read, mut write) = ours.split();
    let expected = data.clone();
    let writer = driver.spawn("writer", async move { write.write_all(&data).await });
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; SIZE];
        theirs.read_exact(&mut all).map(|()| all)
    });
    writer.await.unwrap();
    assert!(reader.join().unwrap().unwrap() == expected);
}

#[async_test]
async fn writing_to_a_lost_peer_is_an_error_and_no_signal(driver: DefaultDriver) {
    let (mut ours, theirs) = pair(&driver);
    drop(theirs);
    let error = ours.write_all(b"anyone?").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[async_test]
async fn a_socket_taken_back_is_blocking_and_can_be_registered_again(driver: DefaultDriver) {
    let (ours, mut theirs) = pair(&driver);
    let mut plain = ours.into_inner();
    let writer = std::thread::spawn(move || theirs.write_all(b"ab").map(|()| theirs));
    let mut byte = [0];
    plain.read_exact(&mut byte).unwrap();
    let _theirs = writer.join().unwrap().unwrap();
    let mut again: PolledSocket<socket2::Socket> =
        PolledSocket::new(&driver, plain).unwrap().convert();
    again.read_exact(&mut byte).await.unwrap();
    assert_eq!(byte, *b"b");
}

#[async_test]
async fn the_end_of_one_direction_is_not_the_end_of_both(driver: DefaultDriver) {
    let (ours, theirs) = pair(&driver);
    let (mut read, mut write) = ours.split();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read.read(&mut [0]).await.unwrap(), 0);
    let mut closed = std::pin::pin!(std::future::poll_fn(|cx| read.poll_closed(cx)));
    assert!(closed.as_mut().now_or_never().is_none());
    write.write_all(&[1]).await.unwrap();
    assert_eq!((&theirs).read(&mut [0]).unwrap(), 1);
    drop(theirs);
    closed.await;
}
