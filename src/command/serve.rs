//! Puts a server together and runs it in the foreground until it is told to stop.
//!
//! Order of the start, so that each failure is met before anything is changed: lock the data directory, recover the
//! tree, open the log behind it, bind the port, start the cores, say "serving".

use super::{checks, daemon, member, options::ServeOptions, start_error::StartError};
use crate::{
    config::{limits, zoo_cfg::ZooCfg},
    cores::{
        clock::{self, Clock},
        lanes::{BellEnd, doorbell, lane},
        memory, placement,
    },
    edge::{ClientCore, EdgeCore, EdgeOptions, EdgeShared},
    links::{LinkOptions, Links},
    ops::purge,
    pipeline::{
        self, CoreLanes, MemberOptions, Pipeline, PipelineOptions, ReapPolicy, SnapshotPolicy, StopFlag, Work,
    },
    status::{Board, picture::StartPicture},
    storage::{
        DataDirs, LogConfig, LogFailure, TxnLog,
        lock::DirectoryLock,
        purge::PurgeMark,
        recovery::{self, Recovered, RecoveryOptions},
        replay::GapCause,
        snapshot::SnapshotOptions,
    },
};
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGXFSZ},
    iterator::Signals,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fmt,
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use zkfast_tree::{GrowthListener, TreeConfig, acl::AclRules};
use zkfast_wire::ServerId;
use zkfast_zab::Config;

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`] says what was wrong, why, and what to do; nothing was served then. A failure of the log while
/// serving does not come back from here: it ends the process with exit code 1.
pub fn serve(options: &ServeOptions) -> Result<(), StartError> {
    let started = Instant::now();
    // Before any thread exists, so that every thread leaves these signals to the one that waits for them.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(StartError::signals)?;
    // Its default is to kill the process without a word; handled, the write fails with EFBIG, which is told like any
    // other failure of the log. Nobody looks at the flag.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(StartError::signals)?;
    checks::before_start(options)?;
    let cfg = &options.cfg;
    let dirs = DataDirs::new(&cfg.data_dir, Some(&cfg.data_log_dir));
    dirs.prepare(cfg.create_data_dir).map_err(refused)?;
    let _locks = lock(&dirs)?;
    let listeners = bind(options)?;
    let address =
        listeners[0].local_addr().map_err(|error| StartError::listen(options.client_address, error))?;
    let snapshot = SnapshotOptions { is_paced: true, ..snapshot_options(cfg) };
    memory::keep_freed();
    // Without it the server is slower, not wrong.
    let growth = memory::ready_ahead()
        .inspect_err(|error| log::warn!("cannot start a thread that finds memory ahead of need: {error}"))
        .ok();
    let initialize = dirs.initialize_file();
    let is_vouched = cfg.create_database || initialize.try_exists().unwrap_or(false);
    let recovery = recovery_options(options, is_vouched);
    let recovered = recover(options, &dirs, &growth, &recovery)?;
    take_away(&initialize)?;
    let is_blank = recovery.doubts_empty && recovered.is_empty();

    let (bell, bell_end) = doorbell().map_err(StartError::descriptors)?;
    let log_config = LogConfig {
        log_dir: dirs.logs.clone(),
        prealloc_kib: u64::from(cfg.prealloc_kib),
        force_sync: cfg.force_sync,
        size_limit_kib: u64::try_from(cfg.log_file_kib_max).ok(),
        // A pipeline with a thread of its own has nothing else to do while the disk writes; a member's has handed the
        // turn's packets to its sockets before.
        writes_in_place: options.has_own_pipeline_thread(),
    };
    let log = TxnLog::open(log_config.clone(), recovered.last, bell.wake_fd()).map_err(refused)?;
    let clock = Clock::start();
    let history = match &options.ensemble {
        Some(_) => Some(member::history(&recovered, &dirs).map_err(refused)?),
        None => None,
    };
    let loaded_bytes = recovered.snapshot.as_ref().map_or(0, |used| used.bytes);
    let snapshot_time = recovered.snapshot.as_ref().map_or(Duration::ZERO, |used| used.elapsed);
    let start = StartPicture {
        whole_ms: recovered.elapsed.as_millis() as u64,
        snapshot_ms: snapshot_time.as_millis() as u64,
        records: recovered.replayed.records,
    };
    let mut tree = recovered.tree;
    let client_cores = listeners.len();
    let board = Arc::new(Board::new(client_cores, cfg, address.port()));
    board.set_start(start);
    let shared = Arc::new(EdgeShared::new(Arc::clone(&board), cfg.protection.connection_throttle.clone()));
    let looks_out = !options.overprovisioned && options.has_own_pipeline_thread();
    let edge_options = Arc::new(EdgeOptions::new(cfg, client_cores, looks_out, clock));

    let mut lanes = Vec::new();
    let mut edges = Vec::new();
    let mut bell_end = Some(bell_end);
    for (index, listener) in listeners.into_iter().enumerate() {
        let (core_bell, core_end) = if options.has_own_pipeline_thread() {
            doorbell().map_err(StartError::descriptors)?
        } else {
            // One thread, one bell.
            (bell.clone(), bell_end.take().expect("there is one client core"))
        };
        let (submit, submissions) = lane(limits::SUBMIT_LANE_SLOTS, bell.clone());
        let (deliver, deliveries) = lane(limits::COMMIT_LANE_SLOTS, core_bell);
        lanes.push(CoreLanes { submissions, deliveries: deliver });
        let parts = EdgeCore {
            index: u16::try_from(index).expect("at most 63 client cores"),
            options: Arc::clone(&edge_options),
            listener,
            reader: tree.reader(),
            submissions: submit,
            deliveries,
            bell: core_end,
            counters: board.core(index),
            shared: Arc::clone(&shared),
        };
        edges.push(ClientCore::new(parts).map_err(StartError::descriptors)?);
    }
    let pipeline_options = PipelineOptions {
        server_id: cfg.server_id.unwrap_or(ServerId(1)),
        tick_ms: cfg.tick_ms,
        flush_warning_ms: cfg.flush_warning_ms,
        looks_out,
        reaping: ReapPolicy {
            interval_ms: cfg.container_check_interval_ms.into(),
            per_minute_max: cfg.container_deletes_per_minute_max.into(),
            never_used_ms: cfg.container_never_used_ms_max,
        },
        snapshots: SnapshotPolicy {
            transactions: u64::from(cfg.snap_count),
            log_bytes: u64::try_from(cfg.snap_log_kib).unwrap_or(0).saturating_mul(1024),
            snapshot,
            loaded_bytes,
        },
        dirs: dirs.clone(),
    };
    let znodes = tree.node_count();
    let last = tree.last_applied();
    let purged = Arc::new(PurgeMark::default());
    let pipeline = match (&options.ensemble, history, &bell_end) {
        (Some(settings), Some(history), Some(bell_end)) => {
            let links = Links::open(LinkOptions::of(settings, cfg.frame_bytes_limit), bell_end)
                .map_err(|error| member::refused(&error))?;
            let parts = MemberOptions {
                config: Config { votes_empty: !is_blank, ..member::protocol(settings) },
                recovered: history,
                log: log_config,
                tree: tree_config(options, &growth),
                recovery,
                leader_serves: settings.leader_serves,
                local_sessions: settings.local_sessions.then_some(settings.upgrades_local_sessions),
                read_only: settings.read_only_mode,
                snapshot_size_factor: settings.snapshot_size_factor,
                log_files: member::log_files(&dirs).map_err(refused)?,
                purged: Arc::clone(&purged),
                board: Arc::clone(&board),
            };
            let counters = board.pipeline();
            Pipeline::member(pipeline_options, parts, links, clock, tree, log, lanes, bell.clone(), counters)
                .map_err(refused)?
        }
        _ => Pipeline::new(pipeline_options, clock, tree, log, lanes, board.pipeline()),
    };
    let stop = Arc::new(StopFlag::default());
    let cores = start_cores(options, pipeline, edges, bell_end, &stop)?;
    if options.ensemble.is_none() {
        // A member serves when it has found its place.
        board.set_serving(true);
    }
    let purging = purge::start(cfg, &dirs, purged).map_err(StartError::thread)?;

    log::info!(
        "{} on {address}{}: {} cores, data in {}, {znodes} znodes, last zxid {last}, started in {} ms",
        if options.ensemble.is_some() { "looking for a leader; clients" } else { "serving" },
        if address.ip().is_loopback() {
            " (this machine only; --client-address 0.0.0.0 or clientPortAddress opens it to other hosts)"
        } else {
            ""
        },
        options.cores,
        dirs.snapshots.display(),
        started.elapsed().as_millis(),
    );
    daemon::announce(options.detached);

    if let Some(signal) = signals.forever().next() {
        log::info!("signal {signal}: finishing what is in flight, then stopping");
    }
    board.set_serving(false);
    drop(purging);
    stop.raise();
    bell.ring_always();
    for core in cores {
        core.join().map_err(|_| StartError::thread("it panicked"))?;
    }
    log::info!("stopped");
    Ok(())
}

/// An error of a room below, which says by itself what is wrong and what to do.
fn refused(error: impl fmt::Display) -> StartError {
    StartError::new(error.to_string(), "The server was not started.")
}

/// Locks both directories, once if they are the same.
fn lock(dirs: &DataDirs) -> Result<Vec<DirectoryLock>, StartError> {
    let mut wanted = vec![&dirs.snapshots];
    if dirs.logs != dirs.snapshots {
        wanted.push(&dirs.logs);
    }
    wanted.into_iter().map(|directory| DirectoryLock::take(directory).map_err(refused)).collect()
}

/// Recovers the tree and tells what was found.
fn recover(
    options: &ServeOptions,
    dirs: &DataDirs,
    growth: &Option<GrowthListener>,
    recovery: &RecoveryOptions,
) -> Result<Recovered, StartError> {
    let recovered = recovery::recover(dirs, &tree_config(options, growth), recovery).map_err(refused)?;
    if recovery.doubts_empty && recovered.is_empty() {
        log::warn!(
            "{} is empty, db.autocreate is false, and there is no file {}: this server does not vote until a leader has \
             given it a history. If this is a new ensemble, make that file on each server and start again.",
            dirs.logs.display(),
            dirs.initialize_file().display()
        );
    }
    for skipped in &recovered.skipped {
        log::warn!("snapshot {} is not used: {}", skipped.path.display(), skipped.reason);
    }
    if let Some((file, bytes)) = recovered.cut() {
        log::warn!(
            "{}: the last write was torn when the server or the machine went down; what was not acknowledged is cut \
             off, {bytes} bytes are good",
            file.display()
        );
    }
    for gap in &recovered.replayed.gaps {
        match gap.cause {
            GapCause::NeverLogged { .. } => log::info!("{gap}"),
            GapCause::Unknown { .. } => log::error!("{gap}"),
        }
    }
    if let (mismatches, Some(last)) = recovered.tree.digest_mismatches() {
        log::error!(
            "Digests are not matching. Value is Zxid. {last}: {mismatches} times in the files that were loaded; they \
             were damaged, or written by a server whose tree differed"
        );
    }
    let from = recovered.snapshot.as_ref().map_or_else(
        || "an empty directory".to_owned(),
        |used| format!("{} ({} bytes)", used.path.display(), used.bytes),
    );
    log::info!(
        "recovered from {from} and {} transactions of the log in {} ms",
        recovered.replayed.records,
        recovered.elapsed.as_millis()
    );
    Ok(recovered)
}

fn snapshot_options(cfg: &ZooCfg) -> SnapshotOptions {
    SnapshotOptions { has_digest: cfg.digest_enabled, ..SnapshotOptions::default() }
}

/// The file that vouches for one start has done so (P4), whatever the disk held.
fn take_away(initialize: &Path) -> Result<(), StartError> {
    match std::fs::remove_file(initialize) {
        Ok(()) => {
            log::info!("found {}: an empty disk is no reason not to vote", initialize.display());
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StartError::new(
            format!(
                "cannot remove {}, which must not vouch for another start: {error}",
                initialize.display()
            ),
            "Make its directory writable for the server.",
        )),
    }
}

fn recovery_options(options: &ServeOptions, is_vouched: bool) -> RecoveryOptions {
    RecoveryOptions {
        // A standalone server has nobody from whom it could get another history.
        doubts_empty: !is_vouched && options.ensemble.is_some(),
        trusts_empty: options.cfg.trust_empty_snapshot,
        snapshot: snapshot_options(&options.cfg),
        told_bytes_max: if options.ensemble.is_some() { limits::TOLD_LOG_BYTES } else { 0 },
    }
}

fn tree_config(options: &ServeOptions, growth: &Option<GrowthListener>) -> TreeConfig {
    TreeConfig {
        hash_seed: u64::try_from(clock::wall_ms()).unwrap_or(0).rotate_left(32)
            ^ u64::from(std::process::id()),
        extended_types: options.cfg.extended_types,
        skip_acl: options.cfg.skip_acl,
        has_digests: options.cfg.digest_enabled,
        record_bytes_max: 2 * options.cfg.frame_bytes_limit as usize,
        acl_rules: AclRules { without_digest: !options.cfg.protection.digest_enabled, ..AclRules::default() },
        local_sessions: options.ensemble.as_ref().is_some_and(|settings| settings.local_sessions),
        enforces_quotas: options.cfg.enforce_quota,
        growth: growth.clone(),
        ..TreeConfig::default()
    }
}

/// One listener for each client core, all on the same port: the kernel spreads the connections.
fn bind(options: &ServeOptions) -> Result<Vec<TcpListener>, StartError> {
    let wanted = options.client_address;
    let client_cores = (options.cores - 1).max(1);
    // SO_REUSEPORT would let us share the port with another server of the same user. So ask for it alone first; no
    // client can connect to a socket that does not listen, and be closed with it.
    let alone = bound(wanted, false).map_err(|error| StartError::listen(wanted, error))?;
    let address = alone.local_addr().map(|address| address.as_socket().expect("an internet address"));
    let address = address.map_err(|error| StartError::listen(wanted, error))?;
    drop(alone);
    (0..client_cores)
        .map(|_| listen(address, options).map_err(|error| StartError::listen(address, error)))
        .collect()
}

fn bound(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr, options: &ServeOptions) -> std::io::Result<TcpListener> {
    let socket = bound(address, true)?;
    // Java's default of 50 loses connections in a reconnect storm; the kernel caps this at net.core.somaxconn.
    let backlog = options.cfg.client_listen_backlog;
    socket.listen(if backlog > 0 { backlog } else { limits::LISTEN_BACKLOG })?;
    Ok(socket.into())
}

/// Starts the pipeline and the client cores, each on its own CPU unless overprovisioned. `bell` is the pipeline's if it
/// has a thread of its own.
fn start_cores(
    options: &ServeOptions,
    pipeline: Pipeline,
    mut edges: Vec<ClientCore>,
    bell: Option<BellEnd>,
    stop: &Arc<StopFlag>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let cpus = placement::allowed_cpus();
    let cpu = |index: usize| (!options.overprovisioned).then(|| cpus[index % cpus.len()]);
    let mut cores = Vec::new();
    let stop = Arc::clone(stop);
    let Some(bell) = bell else {
        let edge = edges.pop().expect("there is one client core at least");
        cores
            .push(start_core("zkfast".to_owned(), cpu(0), move || run_on_one_thread(pipeline, edge, &stop))?);
        return Ok(cores);
    };
    // The pipeline takes the last CPU: the first one is where interrupts and other processes are likeliest.
    let pinned_to = cpu(options.cores - 1);
    let is_member = options.ensemble.is_some();
    let run = move || {
        if is_member {
            return pipeline.run_member(&bell, &stop);
        }
        let sleeper = bell.into_sleeper().expect("an epoll instance, for which descriptors are kept");
        pipeline.run_on_thread(&sleeper, &stop)
    };
    cores.push(start_core("pipeline".to_owned(), pinned_to, run)?);
    for (index, edge) in edges.into_iter().enumerate() {
        cores.push(start_core(format!("client-{index}"), cpu(index), move || {
            edge.run();
            Ok(())
        })?);
    }
    Ok(cores)
}

/// Starts the thread of one core.
fn start_core(
    name: String,
    cpu: Option<usize>,
    run: impl FnOnce() -> Result<(), LogFailure> + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let run = move || {
        if let Some(cpu) = cpu {
            placement::pin_to(cpu);
        }
        if let Err(failure) = run() {
            die(&failure);
        }
    };
    std::thread::Builder::new().name(name).spawn(run).map_err(StartError::thread)
}

/// The pipeline and the only client core, turn about.
fn run_on_one_thread(
    mut pipeline: Pipeline,
    mut edge: ClientCore,
    stop: &StopFlag,
) -> Result<(), LogFailure> {
    loop {
        match pipeline.work(stop)? {
            Work::Done => edge.turn(Duration::ZERO, || false),
            Work::None => edge.turn(pipeline::SLEEP_MAX, || pipeline.may_sleep(stop)),
            Work::Over => break,
        }
    }
    while !pipeline.tell_to_stop() || !edge.is_stopping() {
        edge.turn(Duration::ZERO, || false);
    }
    edge.close_all();
    pipeline.finish()
}

/// The log failed: say so and end at once, before anything else can be acknowledged.
fn die(failure: &LogFailure) -> ! {
    log::error!(
        "the transaction log failed: {failure}. Nothing after the last completed flush was acknowledged. The server \
         stops now; check the disk, then start it again."
    );
    std::process::exit(1);
}
