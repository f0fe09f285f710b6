//! What callers may rely on in the executor and its timers.

use futures::FutureExt;
use pal_async::DefaultDriver;
use pal_async::DefaultPool;
use pal_async::async_test;
use pal_async::local::block_on;
use pal_async::local::block_with_io;
use pal_async::task::Spawn;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::future::pending;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

/// Lets every other ready task have a turn.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[async_test]
async fn a_dropped_task_is_cancelled_and_a_detached_one_is_not(driver: DefaultDriver) {
    let (guard, cancelled) = mesh::oneshot::<()>();
    let task = driver.spawn("waits for ever", async move {
        let _guard = guard;
        pending::<()>().await;
    });
    yield_now().await;
    drop(task);
    assert_eq!(cancelled.await, Err(mesh::RecvError::Closed));

    let (send, recv) = mesh::oneshot();
    driver
        .spawn("detached", async move { send.send(5) })
        .detach();
    assert_eq!(recv.await, Ok(5));
}

#[test]
fn a_task_of_a_dropped_pool_is_cancelled() {
    let (guard, cancelled) = mesh::oneshot::<()>();
    let pool = DefaultPool::new();
    let driver = pool.driver();
    driver
        .spawn("never runs", async move {
            let _guard = guard;
        })
        .detach();
    drop(pool);
    assert_eq!(block_on(cancelled), Err(mesh::RecvError::Closed));
    // Neither does one that is spawned afterwards, nor one that was asleep in a timer.
    let (guard, cancelled) = mesh::oneshot::<()>();
    driver
        .spawn("too late", async move { drop(guard) })
        .detach();
    assert_eq!(block_on(cancelled), Err(mesh::RecvError::Closed));
}

#[test]
fn a_sleeping_task_is_dropped_with_its_pool() {
    let (guard, cancelled) = mesh::oneshot::<()>();
    let mut pool = DefaultPool::new();
    let driver = pool.driver();
    let mut timer = PolledTimer::new(&driver);
    driver
        .spawn("sleeps", async move {
            let _guard = guard;
            timer.sleep(Duration::from_secs(3600)).await;
        })
        .detach();
    pool.run_until(yield_now());
    pool.run_until(yield_now());
    drop(pool);
    assert_eq!(block_on(cancelled), Err(mesh::RecvError::Closed));
}

#[async_test]
async fn a_panic_comes_out_where_the_task_is_awaited(driver: DefaultDriver) {
    let task = driver.spawn("panics", async { panic!("on purpose") });
    let caught = std::panic::AssertUnwindSafe(task).catch_unwind().await;
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"on purpose"));
}

#[test]
fn run_with_ends_only_after_the_tasks_left_behind() {
    let done = Arc::new(Mutex::new(Vec::new()));
    DefaultPool::run_with(async |driver: DefaultDriver| {
        let seen = done.clone();
        let mut timer = PolledTimer::new(&driver);
        driver
            .spawn("late", async move {
                timer.sleep(Duration::from_millis(5)).await;
                seen.lock().unwrap().push("task");
            })
            .detach();
        done.lock().unwrap().push("main");
    });
    assert_eq!(*done.lock().unwrap(), ["main", "task"]);
}

#[test]
fn tasks_are_woken_from_other_threads() {
    let (thread, other) = DefaultPool::spawn_on_thread("other");
    let (to_other, mut at_other) = mesh::channel::<mesh::rpc::Rpc<u32, u32>>();
    other
        .spawn("doubles", async move {
            while let Ok(rpc) = at_other.recv().await {
                rpc.handle_sync(|n| n * 2);
            }
        })
        .detach();
    DefaultPool::run_with(async |driver: DefaultDriver| {
        let task = driver.spawn("asks", async move {
            for n in 0..2000 {
                let reply = mesh::rpc::RpcSend::call(&to_other, |rpc| rpc, n).await;
                assert_eq!(reply, Ok(n * 2), "wake {n} was not lost");
            }
        });
        task.await;
    });
    drop(other);
    thread
        .join()
        .expect("the pool ends with its last driver and task");
}

#[test]
fn a_local_future_need_not_be_send() {
    let shared = Rc::new(3);
    let sum = block_with_io(async |driver| {
        let copy = shared.clone();
        PolledTimer::new(&driver).sleep(Duration::ZERO).await;
        *copy + *shared
    });
    assert_eq!(sum, 6);
}

#[async_test]
async fn timers_fire_in_order_and_never_early(driver: DefaultDriver) {
    let start = Instant::now();
    let (send, mut recv) = mesh::channel();
    let sleepers: Vec<_> = [30, 10, 20]
        .into_iter()
        .map(|millis| {
            let mut timer = PolledTimer::new(&driver);
            let send = send.clone();
            driver.spawn("sleeper", async move {
                let now = timer
                    .sleep_until(start + Duration::from_millis(millis))
                    .await;
                send.send((millis, now - start));
            })
        })
        .collect();
    for expected in [10, 20, 30] {
        let (millis, at) = recv.recv().await.unwrap();
        assert_eq!(millis, expected);
        assert!(
            at >= Duration::from_millis(millis),
            "{millis} ms timer after {at:?}"
        );
    }
    futures::future::join_all(sleepers).await;
}

#[async_test]
async fn a_new_deadline_replaces_the_old_one(driver: DefaultDriver) {
    let start = Instant::now();
    let mut timer = PolledTimer::new(&driver);
    assert!(
        timer
            .sleep(Duration::from_secs(3600))
            .now_or_never()
            .is_none()
    );
    timer.sleep(Duration::from_millis(5)).await;
    assert!(start.elapsed() < Duration::from_secs(60));
    // The clock does not reach this; it must not panic either.
    assert!(timer.sleep(Duration::MAX).now_or_never().is_none());
}

#[test]
fn a_timer_of_another_threads_pool_wakes_it_in_time() {
    let (thread, driver) = DefaultPool::spawn_on_thread("timer");
    // The pool sleeps without a deadline when the timer is set from here.
    let mut timer = PolledTimer::new(&driver);
    block_on(timer.sleep(Duration::from_millis(5)));
    drop((timer, driver));
    thread.join().unwrap();
}

#[async_test]
async fn busy_tasks_shut_out_neither_timers_nor_each_other(driver: DefaultDriver) {
    let busy = driver.spawn("busy", async {
        loop {
            yield_now().await;
        }
    });
    PolledTimer::new(&driver)
        .sleep(Duration::from_millis(5))
        .await;
    assert_eq!(busy.metadata().name().as_ref(), "busy");
    assert!(busy.metadata().location().file().ends_with("executor.rs"));
    drop(busy);
}
