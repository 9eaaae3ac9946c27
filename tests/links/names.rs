//! Names that do not resolve, hang, or come to mean another machine.

use crate::fixture::{Host, address, options, run, vote};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Condvar, Mutex},
};
use zkfast::links::{Names, PeerAddresses};
use zkfast_wire::ServerId;
use zkfast_zab::Event;

/// What a name stands for.
#[derive(Clone)]
enum Entry {
    Unknown,
    Hangs,
    Is(IpAddr),
}

/// A phone book that the test rewrites; it counts how often it was opened.
#[derive(Clone)]
struct Book(Arc<(Mutex<(Entry, usize)>, Condvar)>);

impl Book {
    fn new(entry: Entry) -> Self {
        Self(Arc::new((Mutex::new((entry, 0)), Condvar::new())))
    }

    fn write(&self, entry: Entry) {
        self.0.0.lock().expect("the book").0 = entry;
        self.0.1.notify_all();
    }

    fn lookups(&self) -> usize {
        self.0.0.lock().expect("the book").1
    }
}

impl Names for Book {
    fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(host, "peer.test", "addresses are not looked up");
        let mut entry = self.0.0.lock().expect("the book");
        entry.1 += 1;
        loop {
            match entry.0 {
                Entry::Unknown => return Err(io::Error::other("no such name")),
                Entry::Is(address) => return Ok(vec![address]),
                Entry::Hangs => entry = self.0.1.wait(entry).expect("the book"),
            }
        }
    }
}

/// Servers 1 and 2; server 2 is known to server 1 by a name.
fn named() -> (PeerAddresses, PeerAddresses) {
    let own = PeerAddresses::from([
        (ServerId(1), vec![address("127.0.0.1")]),
        (ServerId(2), vec![address("127.0.0.1")]),
    ]);
    let mut named = own.clone();
    named.get_mut(&ServerId(2)).expect("server 2")[0].host = "peer.test".to_owned();
    (own, named)
}

fn open(named: &PeerAddresses, book: &Book) -> Host {
    let mut settings = options(named, 1);
    settings.names = Arc::new(book.clone());
    settings.election_dial_limit = std::time::Duration::from_millis(300);
    settings.leader_dial_limit = std::time::Duration::from_millis(300);
    Host::open(settings)
}

/// Danger: in a cluster that is being started no name resolves, and the first failure is for ever (Q18).
#[test]
fn a_name_that_does_not_resolve_yet_is_looked_up_again() {
    let (own, named) = named();
    let book = Book::new(Entry::Unknown);
    let mut first = open(&named, &book);
    first.links.notify(ServerId(2), vote(1, 1));
    first.links.dial(ServerId(2));
    run(&mut [&mut first], "failures", |hosts| {
        book.lookups() >= 3 && hosts[0].has(&Event::DialFailed { leader: ServerId(2) })
    });
    let trouble = first.links.figures().peers[0].trouble.clone().expect("a trouble");
    assert!(trouble.contains("'peer.test' does not resolve: no such name"), "{trouble}");
    let mut second = Host::open(options(&own, 2));
    book.write(Entry::Is(Ipv4Addr::LOCALHOST.into()));
    run(&mut [&mut first, &mut second], "a vote", |hosts| hosts[1].votes().count() > 0);
}

/// Danger: a pod whose own name is known a few seconds late ends each time that it starts; or it is elected before
/// anybody can reach it.
#[test]
fn an_own_name_that_does_not_resolve_yet_is_awaited() {
    let (own, named) = named();
    let book = Book::new(Entry::Unknown);
    let mut settings = options(&named, 2);
    settings.names = Arc::new(book.clone());
    settings.bind_tries_max = 2;
    let mut second = Host::open(settings);
    let mut first = Host::open(options(&own, 1));
    let at_start = book.lookups();
    second.links.notify(ServerId(1), vote(2, 1));
    run(&mut [&mut first, &mut second], "more lookups than tries", |_| book.lookups() >= at_start + 3);
    assert!(first.events.is_empty(), "nobody can reach server 2, and it calls: {:?}", first.events);
    book.write(Entry::Is(Ipv4Addr::LOCALHOST.into()));
    run(&mut [&mut first, &mut second], "a vote", |hosts| hosts[0].votes().count() > 0);
    first.links.dial(ServerId(2));
    run(&mut [&mut first, &mut second], "a link", |hosts| hosts.iter().all(|host| host.link().is_some()));
}

/// Danger: a resolver that hangs stops the pipeline, or starts a thread for each try.
#[test]
fn a_lookup_that_hangs_fails_its_dial_and_no_other() {
    let (_, named) = named();
    let book = Book::new(Entry::Hangs);
    let mut first = open(&named, &book);
    first.links.notify(ServerId(2), vote(1, 1));
    for _ in 0..3 {
        let before = first.events.len();
        first.links.dial(ServerId(2));
        run(&mut [&mut first], "the deadline of the dial", |hosts| hosts[0].events.len() > before);
        assert_eq!(first.events[before], Event::DialFailed { leader: ServerId(2) });
    }
    assert_eq!(book.lookups(), 1, "one lookup of a name at a time");
    book.write(Entry::Unknown);
}

/// Danger: a pod comes back under another address, and is dialled at its old one for ever (Q18).
#[test]
fn each_dial_looks_the_name_up_anew() {
    let (own, named) = named();
    let elsewhere: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
    let book = Book::new(Entry::Is(Ipv4Addr::LOCALHOST.into()));
    let mut first = open(&named, &book);
    let mut second = Host::open(options(&own, 2));
    first.links.notify(ServerId(2), vote(1, 1));
    first.links.dial(ServerId(2));
    run(&mut [&mut first, &mut second], "a vote and a link", |hosts| {
        hosts[1].votes().count() > 0 && hosts.iter().all(|host| host.link().is_some())
    });
    drop(second);
    run(&mut [&mut first], "the loss", |hosts| {
        hosts[0].link().is_none() && hosts[0].has(&Event::PeerDown { peer: ServerId(2) })
    });

    let mut moved = own.clone();
    moved.get_mut(&ServerId(2)).expect("server 2")[0].host = elsewhere.to_string();
    let mut second = Host::open(options(&moved, 2));
    book.write(Entry::Is(elsewhere));
    first.links.dial(ServerId(2));
    first.links.notify(ServerId(2), vote(1, 2));
    run(&mut [&mut first, &mut second], "a vote and a link elsewhere", |hosts| {
        hosts[1].votes().any(|(_, vote)| vote.election_epoch == 2) && hosts[0].link().is_some()
    });
    assert_eq!(first.links.figures().links[0].address.ip(), elsewhere);
}
