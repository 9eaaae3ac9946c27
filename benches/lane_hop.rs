//! What a hop between two cores costs: p50 to p99.9 of a round trip, when both ends sleep between messages and when
//! the far end spins before it sleeps. Run on a quiet machine: `cargo bench --bench lane_hop`.

use hdrhistogram::Histogram;
use std::{
    thread,
    time::{Duration, Instant},
};
use zkfast::cores::{
    lanes::{LaneReceiver, LaneSender, Sleeper, doorbell, lane},
    placement::pin_to,
};

const ROUND_TRIPS: u64 = 20_000;
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Waits for one value: spins for `spin`, then sleeps.
fn receive(receiver: &LaneReceiver<u64>, sleeper: &Sleeper, spin: Duration) -> u64 {
    let start = Instant::now();
    loop {
        if let Some(value) = receiver.pop() {
            return value;
        }
        if start.elapsed() < spin {
            std::hint::spin_loop();
        } else {
            sleeper.sleep(SLEEP_MAX, || receiver.is_empty());
        }
    }
}

fn send(sender: &LaneSender<u64>, value: u64) {
    sender.push(value).expect("one value at a time fits");
    sender.ring();
}

fn round_trips(name: &str, spin: Duration, pause: Duration) {
    let (near_bell, near_end) = doorbell().expect("an eventfd");
    let (far_bell, far_end) = doorbell().expect("an eventfd");
    let (to_far, from_near) = lane(64, far_bell);
    let (to_near, from_far) = lane(64, near_bell);
    let far = thread::spawn(move || {
        pin_to(1);
        let sleeper = far_end.into_sleeper().expect("an epoll instance");
        for _ in 0..ROUND_TRIPS {
            let value = receive(&from_near, &sleeper, spin);
            send(&to_near, value);
        }
    });
    let near = thread::spawn(move || {
        pin_to(0);
        let sleeper = near_end.into_sleeper().expect("an epoll instance");
        let mut histogram = Histogram::<u64>::new(3).expect("3 digits");
        for number in 0..ROUND_TRIPS {
            let start = Instant::now();
            send(&to_far, number);
            assert_eq!(receive(&from_far, &sleeper, spin), number);
            histogram.record(start.elapsed().as_nanos() as u64).expect("the histogram grows");
            let idle = Instant::now();
            while idle.elapsed() < pause {
                std::hint::spin_loop();
            }
        }
        histogram
    });
    let histogram = near.join().expect("the near core");
    far.join().expect("the far core");
    let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    println!("{name:<44} p50 {:>7.1} us  p99 {:>7.1} us  p99.9 {:>7.1} us", us(0.5), us(0.99), us(0.999));
}

fn main() {
    round_trips("both sleep", Duration::ZERO, Duration::ZERO);
    round_trips("both sleep, 100 us between round trips", Duration::ZERO, Duration::from_micros(100));
    round_trips("spin 10 us", Duration::from_micros(10), Duration::ZERO);
    round_trips(
        "spin 10 us, 100 us between round trips",
        Duration::from_micros(10),
        Duration::from_micros(100),
    );
}
