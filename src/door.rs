//! The door: who is let in, and when.
//!
//! Stands between `tiny_http` and the kernel, in the three functions of `os.rs`. `tiny_http` gets only
//! connections that there is room, a descriptor and a thread for, and of each only whole, checked
//! heads (`head.rs`), one at a time: the next one when the answer to the last was written and the
//! client has taken what was written before. So it never sees a body, a header without end, a
//! pipeline or a descriptor that cannot be had, and no worker ever waits for a client.
//!
//! A connection lives so: [`accept`] waits until somebody knocks, makes room by shutting whoever
//! has been silent longest, and notes the connection; its thread's first [`receive`] is known by
//! the socket's inode, since `tiny_http` duplicates the descriptor; each further one hands out a
//! head; the worker holds a [`Turn`] from taking the request to having written the answer;
//! [`forget`] drops it when its last descriptor is closed.
//!
//! One lock guards the entrances, one says whose a descriptor is, and each connection has its own
//! for its input and its turn. Under the first two nothing waits, logs, or closes a descriptor.
//! Threads: `tiny_http`'s accept thread of each listener, its connections' threads, and the
//! workers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};

use crate::head::{self, Refusal};
use crate::logging::{self, Line};
use crate::os;
use crate::reply;

/// How long a connection may be silent: nginx's `keepalive_timeout` is 75 s.
const IDLE: Duration = Duration::from_secs(60);
/// How long a head may take from its first byte: a few round trips on the slowest line.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take over an answer that lies ready for it.
const TAKING: Duration = Duration::from_secs(15);
/// How long an answer may be in the making. The longest wait is for two exchanges with upstream,
/// each `UPSTREAM_TIMEOUT_SECONDS` (60) at most.
const ANSWER: Duration = Duration::from_secs(150);
/// How long a refused client is listened to, so that its bytes do not reset the connection before
/// it has read why: RFC 9112 §9.6.
const LINGER: Duration = Duration::from_millis(300);
/// And for how many bytes.
const LINGER_BYTES: usize = 32 << 10;
/// A connection is not evicted before it could speak, nor right after its first answer, which may
/// still be on its way. The longer this is, the fewer newcomers a full house lets in a second.
const NEWCOMER: Duration = Duration::from_millis(50);
/// Nor is one that is kept alive right after an answer.
const ANSWERED: Duration = Duration::from_millis(120);
/// How long a newcomer waits for somebody who may be evicted; then whoever has been silent longest
/// has to go, but for those whose answer is in the making.
const PATIENCE: Duration = Duration::from_millis(60);
/// How long those who come after that newcomer do not wait at all: in a house where nobody is
/// silent each would, and who stands behind hundreds of them would wait for minutes.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// One in so many places is made free at one time, so that those who leave do it side by side; at
/// most [`SPARE_THREADS`], since their threads end after they have left.
const LEAVE_TOGETHER: usize = 32;
/// How long a client that has asked more than once is taken for one that keeps its connection
/// alive, and preferred to those that have just come.
const REGULAR: Duration = Duration::from_secs(5);
/// How long after it came in a connection that has not asked holds up the end of the program.
const ARRIVING: Duration = Duration::from_millis(500);
/// How often a full house is looked at again, where nothing says that it changed.
const RECHECK: Duration = Duration::from_millis(10);
/// How long to wait when the kernel has no descriptor or no memory for a connection.
const SHORTAGE: Duration = Duration::from_millis(20);
/// Threads that must be had, beyond those there are, before a connection more is let in:
/// `tiny_http` starts one and panics when it cannot; the others are room for those that are about to
/// end, and for look-ups of names.
const SPARE_THREADS: usize = 8;
/// For how many connections threads are tried at one time, where there are so many: in a burst a
/// trial for each would keep all the others waiting.
const PROVEN_AHEAD: usize = 16;
/// Connections that are let in however few threads there are.
const FEWEST: usize = 4;
/// Bytes of answers that all clients together may leave untaken. It is the kernel's memory, and
/// counts against the container's limit.
const UNTAKEN_BYTES: usize = 8 << 20;
/// What is left of them when those who left them longest are shut: a quarter less, so that it is
/// not looked through all connections again at each answer.
const UNTAKEN_LEFT: usize = UNTAKEN_BYTES / 4 * 3;
/// Bytes of answers that one client may leave untaken and be given another: the send buffer holds
/// these and the largest answer. To look after each answer would cost a system call.
const UNTAKEN_ALLOWED: usize = 64 << 10;
/// Bytes of heads that all clients together may have begun, or sent and wait for their turn. Above
/// that a head of more than [`SMALL_HEAD`] is refused; who is polite sends a small one, and at
/// once.
const BEGUN_BYTES: usize = 3 << 20;
/// Bytes of a head that are let in however many are begun.
const SMALL_HEAD: usize = 4 << 10;
/// What is kept of a connection's input buffer between two requests.
const KEPT_BUFFER: usize = 1 << 10;
/// Descriptors for other things than public connections, which take two each: the admin listener's
/// connections, upstream, files.
const OTHER_DESCRIPTORS: usize = 64;

/// Why a connection was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client closed, or was silent for too long between two requests: no event.
    Over,
    Refused(Refusal),
    Evicted,
    AnswerNotTaken,
    AnswerNotMade,
}

/// A listener, and the connections that came in by it.
struct Entrance {
    listener: RawFd,
    /// Connections at most; lowered when threads are short, for good.
    most: usize,
    /// So many connections have had a thread each at one time, and no other entrance has claimed
    /// threads since.
    proven: usize,
    open: Vec<Arc<Connection>>,
    /// The last one let in, until its thread has begun to read.
    newest: Option<Arc<Connection>>,
    /// When that was, by [`now`].
    last_in: u64,
    /// Until when newcomers are impatient, by [`now`].
    impatient_until: u64,
}

struct Table {
    entrances: Vec<Entrance>,
    /// Listeners where nobody comes in any more.
    closed_up: Vec<RawFd>,
    last_id: u64,
    /// It is being tried whether there are threads for more; nobody is let in meanwhile, since
    /// `tiny_http` might find none for him.
    trying: bool,
}

static TABLE: Mutex<Table> =
    Mutex::new(Table { entrances: Vec::new(), closed_up: Vec::new(), last_id: 0, trying: false });
/// Whose a descriptor is, by its number; a connection stands here twice. A descriptor is taken out
/// before it is closed, so that whoever holds this lock can use one that stands here. Taken after
/// [`TABLE`] where both are; for a request it is only read.
static DESCRIPTORS: RwLock<Vec<Option<Arc<Connection>>>> = RwLock::new(Vec::new());
/// Bytes of heads that have begun to come in and are not whole.
static BEGUN: AtomicUsize = AtomicUsize::new(0);
/// Bytes written to clients that may not have taken them; an upper bound.
static UNTAKEN: AtomicUsize = AtomicUsize::new(0);
/// [`prove`] has succeeded once: from then on what happens at the door is logged.
static PROVEN: AtomicBool = AtomicBool::new(false);
/// A connection began to be read, or was closed.
static CHANGED: Condvar = Condvar::new();

struct Connection {
    id: u64,
    listener: RawFd,
    peer: SocketAddr,
    /// As accepted: open for as long as it stands in the table.
    fd: RawFd,
    inode: u64,
    /// Of its two descriptors, how many stand in the table.
    descriptors: AtomicUsize,
    /// It came before the door was proven: the program itself, of which nothing is told.
    is_proof: bool,
    heads: AtomicUsize,
    /// When it last did something, by [`now`]: came in, began a head, sent it whole, or was
    /// answered. Not each byte counts: who drips them is as good as silent.
    mark: AtomicU64,
    /// A head has begun to come in and is not handed out yet.
    begun: AtomicBool,
    /// It is being shut; nothing more is handed out.
    doomed: AtomicBool,
    /// No head comes in after the answer that is in the making.
    last: AtomicBool,
    /// Of an answer, until it is known to be taken.
    untaken: AtomicUsize,
    turn: Mutex<TurnState>,
    answered: Condvar,
    /// Only the connection's own thread looks at it.
    input: Mutex<Input>,
}

/// Whose turn it is on a connection.
#[derive(Default)]
struct TurnState {
    /// The worker's: an answer is in the making.
    busy: bool,
    /// The connection's thread waits for that answer. A wake that nobody waits for would cost a
    /// system call for each request.
    awaited: bool,
}

#[derive(Default)]
struct Input {
    received: Vec<u8>,
    /// The head that is being handed out, and how much of it was.
    head: Vec<u8>,
    handed: usize,
}

/// A lock whose holder panicked still guards whole values: each change under it is one assignment,
/// or one insertion or removal of std's collections.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection that `fd` is known to be of.
fn known(fd: RawFd) -> Option<Arc<Connection>> {
    let index = usize::try_from(fd).ok()?;
    DESCRIPTORS.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned().flatten()
}

/// Notes that `fd` is `connection`'s.
fn enter(fd: RawFd, connection: &Arc<Connection>) {
    let Ok(index) = usize::try_from(fd) else { return };
    connection.descriptors.fetch_add(1, Ordering::Relaxed);
    let mut descriptors = DESCRIPTORS.write().unwrap_or_else(PoisonError::into_inner);
    if index >= descriptors.len() {
        descriptors.resize(index + 1, None);
    }
    if let Some(place) = descriptors.get_mut(index) {
        *place = Some(Arc::clone(connection));
    }
}

/// Milliseconds on a clock of our own, for [`Connection::mark`].
fn now() -> u64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Puts the door before a listener, which `tiny_http` must not have yet, and returns how many
/// connections it will let in: `most`, or what the limit of descriptors leaves.
pub(crate) fn guard(listener: RawFd, most: usize) -> usize {
    let affordable = os::descriptor_limit().saturating_sub(OTHER_DESCRIPTORS) / 2;
    let allowed = most.min(affordable.max(FEWEST));
    lock(&TABLE).entrances.push(Entrance {
        listener,
        most: allowed,
        proven: 0,
        open: Vec::with_capacity(allowed.min(1024)),
        newest: None,
        last_in: 0,
        impatient_until: 0,
    });
    allowed
}

/// What accept4 is to do on `listener`, by `kernel`, its raw system call.
///
/// On a listener of ours no error of the network's making comes out, since the first would end
/// `tiny_http`'s accept loop.
pub(crate) fn accept(
    listener: RawFd,
    kernel: &mut dyn FnMut() -> io::Result<RawFd>,
) -> io::Result<RawFd> {
    if lock(&TABLE).entrance(listener).is_none() {
        return kernel();
    }
    loop {
        while lock(&TABLE).closed_up.contains(&listener) {
            thread::park();
        }
        // Nobody is evicted before somebody knocks.
        os::wait_readable(listener, None);
        if lock(&TABLE).closed_up.contains(&listener) {
            continue;
        }
        make_room(listener);
        match kernel() {
            Ok(fd) if admit(listener, fd) => {
                COUNTS.let_in.fetch_add(1, Ordering::Relaxed);
                return Ok(fd);
            }
            Ok(fd) => {
                COUNTS.turned_away.fetch_add(1, Ordering::Relaxed);
                os::discard(fd);
            }
            Err(error) => match error.raw_os_error() {
                // The end of close_up(), and not of the accept loop.
                Some(libc::EINVAL) if lock(&TABLE).closed_up.contains(&listener) => {}
                Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) => {
                    return Err(error);
                }
                Some(libc::EINTR | libc::ECONNABORTED) => {}
                _ => {
                    if logging::admits(Line::Shortage) {
                        warn!(error:%; "cannot accept a connection, trying on");
                    }
                    thread::sleep(SHORTAGE);
                }
            },
        }
    }
}

/// What happened at the door since the start, by reason.
struct Counts {
    let_in: AtomicU64,
    turned_away: AtomicU64,
    evicted: AtomicU64,
    not_taken: AtomicU64,
    not_made: AtomicU64,
    /// By status.
    refused: Mutex<BTreeMap<u16, u64>>,
    /// How many were shut out when that was last told.
    told: AtomicU64,
}

static COUNTS: Counts = Counts {
    let_in: AtomicU64::new(0),
    turned_away: AtomicU64::new(0),
    evicted: AtomicU64::new(0),
    not_taken: AtomicU64::new(0),
    not_made: AtomicU64::new(0),
    refused: Mutex::new(BTreeMap::new()),
    told: AtomicU64::new(0),
};

/// Logs the counts, if anybody was shut out since the last call.
pub(crate) fn tell_counts() {
    let Counts { let_in, turned_away, evicted, not_taken, not_made, refused, told } = &COUNTS;
    let [let_in, turned_away, evicted, not_taken, not_made] =
        [let_in, turned_away, evicted, not_taken, not_made]
            .map(|count| count.load(Ordering::Relaxed));
    let refused = lock(refused).clone();
    let shut_out = [turned_away, evicted, not_taken, not_made].iter().chain(refused.values()).sum();
    if told.swap(shut_out, Ordering::Relaxed) == shut_out {
        return;
    }
    let refused: Vec<_> =
        refused.iter().map(|(status, count)| format!("{status}:{count}")).collect();
    info!(
        let_in, refused = refused.join(","), evicted, not_taken, not_made, turned_away;
        "connections since the start"
    );
}

/// What there is for a newcomer.
enum Room {
    /// A place, and a thread.
    Free,
    /// A place; whether a thread can be had is to be tried.
    Unproven,
    /// These clients were shut to make room.
    Evicted(Vec<Arc<Connection>>),
    /// Nothing yet.
    None,
}

/// Whether somebody came in by `listener` within this time.
pub(crate) fn has_newcomer(listener: RawFd, within: Duration) -> bool {
    let last_in = lock(&TABLE).entrance(listener).map_or(0, |entrance| entrance.last_in);
    u128::from(now().saturating_sub(last_in)) < within.as_millis()
}

/// Lets nobody in by `listener` any more: who knocks is told so at once by the kernel.
pub(crate) fn close_up(listener: RawFd) {
    lock(&TABLE).closed_up.push(listener);
    os::shutdown(listener, Shutdown::Read);
}

/// Whether nothing is under way: no answer in the making, no head begun, nobody who has just come.
pub(crate) fn is_quiet() -> bool {
    let now = now();
    lock(&TABLE).entrances.iter().flat_map(|entrance| &entrance.open).all(|connection| {
        let silent = now.saturating_sub(connection.mark.load(Ordering::Relaxed));
        let has_asked = connection.heads.load(Ordering::Relaxed) > 0;
        let arriving = !has_asked && u128::from(silent) < ARRIVING.as_millis();
        !lock(&connection.turn).busy && !connection.begun.load(Ordering::Relaxed) && !arriving
    })
}

/// Returns when there is room for one connection more, and a thread.
fn make_room(listener: RawFd) {
    let begin = Instant::now();
    loop {
        let room = lock(&TABLE).room(listener, begin.elapsed() > PATIENCE);
        match room {
            Room::Free => return,
            Room::Unproven => {
                let trying = Trying;
                let more = [PROVEN_AHEAD, 1]
                    .into_iter()
                    .find(|more| can_start_threads(more.saturating_add(SPARE_THREADS)));
                let lowered = lock(&TABLE).learn(listener, more);
                drop(trying);
                if let Some(most) = lowered {
                    warn!(
                        most,
                        hint = "raise the container's limit of pids, or lower MAX_CONNECTIONS";
                        "no thread can be had for one connection more: fewer are let in from now on"
                    );
                }
                // As few as can be come in all the same: tiny_http has a thread for these.
                if more.is_some() || lowered.is_none() {
                    return;
                }
            }
            Room::Evicted(victims) => {
                victims.iter().for_each(|victim| tell(End::Evicted, victim));
            }
            Room::None => {
                let table = lock(&TABLE);
                let none = |table: &mut Table| {
                    let waits = table.trying || !table.is_settled();
                    table.entrance(listener).is_some_and(|entrance| waits || entrance.is_full())
                };
                drop(CHANGED.wait_timeout_while(table, RECHECK, none));
            }
        }
    }
}

/// While threads are tried: [`Table::trying`].
struct Trying;

impl Drop for Trying {
    fn drop(&mut self) {
        lock(&TABLE).trying = false;
        CHANGED.notify_all();
    }
}

/// Whether so many threads can be had at one time.
fn can_start_threads(count: usize) -> bool {
    let gate = Arc::new(Mutex::new(()));
    // None of them ends before all have been started.
    let shut = lock(&gate);
    let start = || {
        let gate = Arc::clone(&gate);
        thread::Builder::new().stack_size(16 << 10).spawn(move || drop(lock(&gate)))
    };
    let threads: Vec<_> = (0..count).map(|_| start()).collect();
    drop(shut);
    let started: Vec<_> =
        threads.into_iter().map(|thread| thread.map(thread::JoinHandle::join)).collect();
    started.iter().all(Result::is_ok)
}

/// Notes a connection that was just accepted; it is turned away when `tiny_http` would choke on it.
fn admit(listener: RawFd, fd: RawFd) -> bool {
    // tiny_http panics when it cannot duplicate the descriptor, or learn who the client is.
    let (true, Some(peer), Some(inode)) =
        (os::has_spare_descriptor(fd), os::peer(fd), os::inode(fd))
    else {
        return false;
    };
    if os::set_receive_timeout(fd, IDLE).is_err() {
        return false;
    }
    let mut table = lock(&TABLE);
    table.last_id += 1;
    let connection = Arc::new(Connection {
        id: table.last_id,
        listener,
        peer,
        fd,
        inode,
        descriptors: AtomicUsize::new(0),
        is_proof: !PROVEN.load(Ordering::Relaxed),
        heads: AtomicUsize::new(0),
        mark: AtomicU64::new(now()),
        begun: AtomicBool::new(false),
        doomed: AtomicBool::new(false),
        last: AtomicBool::new(false),
        untaken: AtomicUsize::new(0),
        turn: Mutex::default(),
        answered: Condvar::new(),
        input: Mutex::default(),
    });
    if let Some(entrance) = table.entrance(listener) {
        entrance.open.push(Arc::clone(&connection));
        entrance.newest = Some(Arc::clone(&connection));
        entrance.last_in = now();
    }
    drop(table);
    enter(fd, &connection);
    true
}

/// What recv is to do: `None` for a descriptor that is none of ours, else how many bytes `hand`
/// took of a head; 0 is the end of the connection.
pub(crate) fn receive(fd: RawFd, hand: impl FnOnce(&[u8]) -> usize) -> Option<usize> {
    let connection = known(fd).or_else(|| lock(&TABLE).adopt(fd))?;
    let mut input = lock(&connection.input);
    if input.handed >= input.head.len()
        && let Err(end) = connection.next_head(fd, &mut input)
    {
        *input = Input::default();
        drop(input);
        tell(end, &connection);
        return Some(0);
    }
    let count = hand(input.head.get(input.handed..).unwrap_or_default());
    input.handed += count;
    let is_whole = input.handed >= input.head.len();
    drop(input);
    if is_whole {
        // Before tiny_http can have seen the end of the head.
        lock(&connection.turn).busy = true;
        connection.heads.fetch_add(1, Ordering::Relaxed);
    }
    Some(count)
}

/// What close is to do before it closes.
pub(crate) fn forget(fd: RawFd) {
    let Ok(index) = usize::try_from(fd) else { return };
    let mut descriptors = DESCRIPTORS.write().unwrap_or_else(PoisonError::into_inner);
    let connection = descriptors.get_mut(index).and_then(Option::take);
    drop(descriptors);
    let Some(connection) = connection else {
        // A listener's number may become another socket's.
        return lock(&TABLE).entrances.retain(|entrance| entrance.listener != fd);
    };
    if connection.descriptors.fetch_sub(1, Ordering::SeqCst) > 1 {
        return;
    }
    connection.note_taken();
    let mut table = lock(&TABLE);
    if let Some(entrance) = table.entrance(connection.listener) {
        entrance.open.retain(|other| !Arc::ptr_eq(other, &connection));
        if entrance.newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, &connection)) {
            entrance.newest = None;
        }
    }
    drop(table);
    CHANGED.notify_all();
}

impl Table {
    fn entrance(&mut self, listener: RawFd) -> Option<&mut Entrance> {
        self.entrances.iter_mut().find(|entrance| entrance.listener == listener)
    }

    /// A descriptor that is read from for the first time may be the duplicate of the newest
    /// connection's.
    fn adopt(&mut self, fd: RawFd) -> Option<Arc<Connection>> {
        self.entrances.iter().find(|entrance| entrance.newest.is_some())?;
        let inode = os::inode(fd)?;
        let is_it = |newest: &mut Arc<Connection>| newest.inode == inode;
        let connection =
            self.entrances.iter_mut().find_map(|entrance| entrance.newest.take_if(is_it))?;
        enter(fd, &connection);
        CHANGED.notify_all();
        Some(connection)
    }

    /// What there is for somebody who knocks at `listener`, after shutting somebody if need be.
    fn room(&mut self, listener: RawFd, impatient: bool) -> Room {
        let (trying, all_settled) = (self.trying, self.is_settled());
        let Some(entrance) = self.entrance(listener) else { return Room::Free };
        if entrance.is_full() {
            let mut victims = entrance.victims(impatient);
            victims.retain(|victim| victim.doom());
            if victims.is_empty() { Room::None } else { Room::Evicted(victims) }
        } else if trying || !entrance.is_settled() {
            Room::None
        } else if entrance.open.len() < entrance.proven {
            Room::Free
        } else if all_settled {
            self.trying = true;
            Room::Unproven
        } else {
            Room::None
        }
    }

    /// Nobody who was let in has still to get his thread.
    fn is_settled(&self) -> bool {
        self.entrances.iter().all(Entrance::is_settled)
    }

    /// Remembers that so many connections `more` can have a thread each, if any can. Returns how
    /// many are let in by `listener` from now on when these are fewer.
    fn learn(&mut self, listener: RawFd, more: Option<usize>) -> Option<usize> {
        if more.is_some() {
            // The same threads may have been promised to another.
            for other in &mut self.entrances {
                other.proven = other.open.len();
            }
        }
        let entrance = self.entrance(listener)?;
        let open = entrance.open.len();
        if let Some(more) = more {
            entrance.proven = open.saturating_add(more);
            return None;
        }
        let most = open.saturating_sub(SPARE_THREADS).max(FEWEST);
        if most < entrance.most {
            entrance.most = most;
            return Some(most);
        }
        None
    }

    /// Frees the kernel's memory from those who have left their answers longest, while all of
    /// them together leave too much. Returns who was shut.
    fn free_untaken(&self) -> Vec<Arc<Connection>> {
        let mut all = 0_usize;
        let mut leaving = Vec::new();
        for connection in self.entrances.iter().flat_map(|entrance| &entrance.open) {
            // What was left by those who are being shut is about to be free.
            let is_doomed = connection.doomed.load(Ordering::Relaxed);
            if !is_doomed && connection.untaken.load(Ordering::Relaxed) > 0 {
                let bytes = connection.if_open(|fd| connection.note_untaken(fd)).unwrap_or(0);
                all = all.saturating_add(bytes);
                if bytes > 0 {
                    leaving.push((connection.mark.load(Ordering::Relaxed), bytes, connection));
                }
            }
        }
        if all <= UNTAKEN_BYTES {
            return Vec::new();
        }
        leaving.sort_by_key(|(mark, ..)| *mark);
        let mut shut = Vec::new();
        for (_, bytes, connection) in leaving {
            if all <= UNTAKEN_LEFT {
                break;
            }
            all = all.saturating_sub(bytes);
            if connection.doom() {
                shut.push(Arc::clone(connection));
            }
        }
        shut
    }
}

impl Entrance {
    /// The last one let in has its thread, which no trial must take from it. And `tiny_http` gives
    /// one idle thread to two connections when the second comes before it has woken for the first.
    const fn is_settled(&self) -> bool {
        self.newest.is_none()
    }

    const fn is_full(&self) -> bool {
        self.open.len() >= self.most
    }

    /// Who is to leave for newcomers: those who have been silent longest, of those who are not in
    /// regular use, else of the others: one, or as many when these are a crowd. Nobody while
    /// somebody is leaving already, or, for a while unless `impatient`, when all have just come or
    /// been answered.
    fn victims(&mut self, impatient: bool) -> Vec<Arc<Connection>> {
        let is_busy = |other: &Connection| lock(&other.turn).busy;
        let is_doomed = |other: &Connection| other.doomed.load(Ordering::Relaxed);
        // Who is doomed and busy leaves when his answer is made, which may take long.
        let leaving = self.open.iter().filter(|other| is_doomed(other) && !is_busy(other)).count();
        if self.open.len() < self.most + leaving {
            return Vec::new();
        }
        let now = now();
        let silent = |other: &Connection| {
            Duration::from_millis(now.saturating_sub(other.mark.load(Ordering::Relaxed)))
        };
        let has_rested = |other: &Connection| {
            let is_kept = other.heads.load(Ordering::Relaxed) > 1;
            silent(other) >= if is_kept { ANSWERED } else { NEWCOMER }
        };
        let is_regular =
            |other: &Connection| other.heads.load(Ordering::Relaxed) > 1 && silent(other) < REGULAR;
        let mut all: Vec<_> =
            self.open.iter().filter(|other| !is_doomed(other) && !is_busy(other)).collect();
        // Looked at once each: they go on changing.
        all.sort_by_cached_key(|other| other.mark.load(Ordering::Relaxed));
        let regulars = all.iter().filter(|other| is_regular(other)).count();
        let crowd_of_regulars = regulars > self.most / 2;
        let rested = |regular| {
            let of_those = move |other: &&&Arc<Connection>| is_regular(other) == regular;
            all.iter().filter(|other| has_rested(other)).filter(of_those)
        };
        let together = (self.most / LEAVE_TOGETHER).clamp(1, SPARE_THREADS);
        let of_regulars = if crowd_of_regulars { together } else { 1 };
        let mut victims: Vec<_> = rested(false).take(together).copied().cloned().collect();
        if victims.is_empty() {
            victims.extend(rested(true).take(of_regulars).copied().cloned());
        }
        if victims.is_empty() && (impatient || now < self.impatient_until) {
            // Neither regulars nor newcomers may take more than half of the house from the others.
            let of_those = |other: &&&Arc<Connection>| is_regular(other) == crowd_of_regulars;
            let victim = all.iter().find(of_those).or_else(|| all.first());
            victims.extend(victim.copied().cloned());
            let for_a_while = u64::try_from(IMPATIENCE.as_millis()).unwrap_or(u64::MAX);
            self.impatient_until = now.saturating_add(for_a_while);
        }
        victims
    }
}

impl Connection {
    /// Does something with the descriptor that it was accepted with, if that is still open.
    fn if_open<T>(&self, act: impl FnOnce(RawFd) -> T) -> Option<T> {
        let index = usize::try_from(self.fd).ok()?;
        let descriptors = DESCRIPTORS.read().unwrap_or_else(PoisonError::into_inner);
        let open = descriptors.get(index).and_then(Option::as_ref);
        let done = open.is_some_and(|open| open.id == self.id).then(|| act(self.fd));
        // Not before: the lock keeps the descriptor open.
        drop(descriptors);
        done
    }

    /// Shuts it down: its thread wakes, sees the end, and `tiny_http` closes it. Whether it was
    /// not shut down before.
    fn doom(&self) -> bool {
        if self.doomed.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.if_open(|fd| {
            os::discard_on_close(fd);
            os::shutdown(fd, Shutdown::Both);
        });
        // Under the lock, so that the thread does not look at `doomed` before and wait after.
        drop(lock(&self.turn));
        self.answered.notify_all();
        true
    }

    /// Counts anew what the client has not taken, in bytes.
    fn note_untaken(&self, fd: RawFd) -> usize {
        let before = self.untaken.load(Ordering::Relaxed);
        let bytes = os::unconfirmed(fd).min(before);
        // Where an answer was written meanwhile, the count stays until the next time.
        let ordering = Ordering::Relaxed;
        if self.untaken.compare_exchange(before, bytes, ordering, ordering).is_ok() {
            UNTAKEN.fetch_sub(before - bytes, ordering);
        }
        bytes
    }

    /// Nothing that was written is in the kernel any more, or will be for long.
    fn note_taken(&self) {
        UNTAKEN.fetch_sub(self.untaken.swap(0, Ordering::SeqCst), Ordering::Relaxed);
    }

    /// Waits for a whole good head, and until it is its turn; leaves it in `input.head`.
    fn next_head(&self, fd: RawFd, input: &mut Input) -> Result<(), End> {
        input.head.clear();
        input.head.shrink_to(KEPT_BUFFER);
        input.handed = 0;
        if self.heads.load(Ordering::Relaxed) == 0 && os::peer(fd).is_none() {
            // Reset since it was accepted: tiny_http would panic on a request of it.
            return Err(End::Over);
        }
        let is_last = || self.last.load(Ordering::Relaxed);
        // Until it is handed out, or refused.
        let mut counted = Begun(0);
        let found = if is_last() {
            Err(Ended::Over)
        } else {
            self.find_head(fd, &mut input.received, &mut counted)
        };
        self.await_answer()?;
        if is_last() {
            // The client sees the end at once; the socket is closed when it has taken all.
            os::shutdown(fd, Shutdown::Write);
        }
        let over = is_last() || found.is_err();
        self.await_taking(fd, if over { 0 } else { UNTAKEN_ALLOWED })?;
        if is_last() {
            return Err(End::Over);
        }
        let outcome = match found {
            Ok(length) => {
                let whole = input.received.get(..length).unwrap_or_default();
                head::check(whole).map(|head| {
                    self.last.store(head.is_last(), Ordering::Relaxed);
                    head.hand_on((fd, self.id), &mut input.head);
                    length
                })
            }
            Err(Ended::Refused(refusal)) => Err(refusal),
            Err(Ended::Over) => return Err(End::Over),
        };
        match outcome {
            Ok(length) => {
                input.received.drain(..length);
                input.received.shrink_to(KEPT_BUFFER);
                self.begun.store(!input.received.is_empty(), Ordering::Relaxed);
                self.mark.store(now(), Ordering::Relaxed);
                Ok(())
            }
            Err(refusal) => {
                let method = if input.received.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
                refuse(fd, method, refusal);
                Err(End::Refused(refusal))
            }
        }
    }

    /// Reads until a head is whole; its length.
    fn find_head(
        &self,
        fd: RawFd,
        received: &mut Vec<u8>,
        counted: &mut Begun,
    ) -> Result<usize, Ended> {
        let mut begin = (!received.is_empty()).then(Instant::now);
        let mut searched = 0_usize;
        let mut skipped = self.heads.load(Ordering::Relaxed) == 0;
        loop {
            if self.doomed.load(Ordering::Relaxed) {
                return Err(Ended::Over);
            }
            let empty = head::empty_lines(received);
            received.drain(..empty);
            searched = searched.saturating_sub(empty);
            if received.is_empty() && empty == 2 && !skipped {
                // One that old clients send after a request is not the beginning of another.
                skipped = true;
                begin = None;
                self.begun.store(false, Ordering::Relaxed);
            }
            if let Some(length) = head::length(received, searched).map_err(Ended::Refused)? {
                return Ok(length);
            }
            searched = received.len();
            let wait = match begin {
                None => true,
                Some(begin) => {
                    let left = HEAD.saturating_sub(begin.elapsed());
                    if left.is_zero() || !os::wait_readable(fd, Some(left)) {
                        return Err(Ended::Refused(head::TOO_SLOW));
                    }
                    false
                }
            };
            receive_more(fd, received, wait)?;
            if counted.now(received.len()) > BEGUN_BYTES && received.len() > SMALL_HEAD {
                return Err(Ended::Refused(head::TOO_MUCH));
            }
            if begin.is_none() {
                begin = Some(Instant::now());
                self.begun.store(true, Ordering::Relaxed);
                self.mark.store(now(), Ordering::Relaxed);
            }
        }
    }

    /// Waits until the worker has written the answer to the last head.
    fn await_answer(&self) -> Result<(), End> {
        let in_the_making = |turn: &mut TurnState| {
            turn.awaited = turn.busy && !self.doomed.load(Ordering::Relaxed);
            turn.awaited
        };
        let waited = self.answered.wait_timeout_while(lock(&self.turn), ANSWER, in_the_making);
        let timeout = waited.unwrap_or_else(PoisonError::into_inner).1;
        match (timeout.timed_out(), self.doomed.load(Ordering::Relaxed)) {
            (true, _) if self.doom() => Err(End::AnswerNotMade),
            (true, _) => Err(End::Over),
            (false, true) => Err(End::Over),
            (false, false) => Ok(()),
        }
    }

    /// Waits until the client has taken its answers, if more than `allowed` bytes of them may be
    /// untaken. So the send buffer always has room for the next, and a worker's write never waits.
    fn await_taking(&self, fd: RawFd, allowed: usize) -> Result<(), End> {
        if self.untaken.load(Ordering::Relaxed) <= allowed {
            return Ok(());
        }
        let begin = Instant::now();
        let mut pause = Duration::from_millis(1);
        // A reset connection has no peer, and its bytes will never be confirmed.
        while os::unconfirmed(fd) > 0 && os::peer(fd).is_some() {
            if self.doomed.load(Ordering::Relaxed) {
                return Err(End::Over);
            }
            if begin.elapsed() > TAKING {
                return Err(if self.doom() { End::AnswerNotTaken } else { End::Over });
            }
            // The kernel tells nobody when a send buffer becomes empty; doom() tells.
            let stays = |_: &mut TurnState| !self.doomed.load(Ordering::Relaxed);
            drop(self.answered.wait_timeout_while(lock(&self.turn), pause, stays));
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.note_taken();
        Ok(())
    }
}

/// What one connection's head counts for in [`BEGUN`], until this is dropped.
struct Begun(usize);

impl Begun {
    /// Counts the head as so long; how long all heads are then.
    fn now(&mut self, length: usize) -> usize {
        let more = length.saturating_sub(self.0);
        self.0 += more;
        BEGUN.fetch_add(more, Ordering::Relaxed).saturating_add(more)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        BEGUN.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Why no head was found.
enum Ended {
    Over,
    Refused(Refusal),
}

fn receive_more(fd: RawFd, received: &mut Vec<u8>, wait: bool) -> Result<(), Ended> {
    let before = received.len();
    // Exactly: a vector that doubles would hold two heads.
    received.reserve_exact(KEPT_BUFFER);
    received.resize(before + KEPT_BUFFER, 0);
    let fresh = received.get_mut(before..).unwrap_or_default();
    let count = loop {
        match os::receive(fd, fresh, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => break outcome,
        }
    };
    received.truncate(before + count.as_ref().copied().unwrap_or(0));
    match count {
        Ok(1..) => Ok(()),
        // Silent for too long, or gone.
        Ok(0) | Err(_) => Err(Ended::Over),
    }
}

/// Answers in `tiny_http`'s place, and lets the client read it before the connection is closed.
fn refuse(fd: RawFd, method: &str, refusal: Refusal) {
    os::send(fd, &reply::refusal(method, refusal.status, SystemTime::now()));
    os::shutdown(fd, Shutdown::Write);
    let begin = Instant::now();
    let mut sink = [0; 2048];
    let mut eaten = 0_usize;
    while eaten < LINGER_BYTES {
        let left = LINGER.saturating_sub(begin.elapsed());
        if left.is_zero() || !os::wait_readable(fd, Some(left)) {
            return;
        }
        match os::receive(fd, &mut sink, false) {
            Ok(count @ 1..) => eaten = eaten.saturating_add(count),
            Ok(0) | Err(_) => return,
        }
    }
}

/// Counts an end and logs it, where it is an event.
fn tell(end: End, connection: &Connection) {
    if connection.is_proof {
        return;
    }
    let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    let line = match end {
        End::Over => return,
        End::Refused(Refusal { status, .. }) => {
            *lock(&COUNTS.refused).entry(status).or_default() += 1;
            Line::Refused
        }
        End::Evicted => {
            count(&COUNTS.evicted);
            Line::Evicted
        }
        End::AnswerNotTaken => {
            count(&COUNTS.not_taken);
            Line::Cut
        }
        End::AnswerNotMade => {
            count(&COUNTS.not_made);
            Line::Cut
        }
    };
    if !logging::admits(line) {
        return;
    }
    let peer = connection.peer;
    match end {
        End::Over => {}
        End::Refused(Refusal { status, because }) => {
            info!(status, why = because, peer:%; "refused");
        }
        End::Evicted => info!(why = "silent longest, and there was no room", peer:%; "evicted"),
        End::AnswerNotTaken => info!(why = "the client does not take its answer", peer:%; "cut"),
        End::AnswerNotMade => warn!(why = "no answer was made in time", peer:%; "cut"),
    }
}

/// Held by a worker from taking a request until its answer is written; then the connection's next
/// head may come in.
pub(crate) struct Turn(Option<Arc<Connection>>);

impl Turn {
    /// The turn that a head was handed out with, by the value of its field [`head::DOOR`].
    pub(crate) fn of(door: &str) -> Self {
        let connection = door.split_once(':').and_then(|(fd, id)| {
            let (fd, id): (RawFd, u64) = (fd.parse().ok()?, id.parse().ok()?);
            known(fd).filter(|connection| connection.id == id)
        });
        Self(connection)
    }

    /// The answer of so many bytes was written whole.
    pub(crate) fn written(self, bytes: usize) {
        let Some(connection) = &self.0 else { return };
        connection.mark.store(now(), Ordering::Relaxed);
        // In this order: what is taken off all was added to it before.
        let all = UNTAKEN.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        connection.untaken.fetch_add(bytes, Ordering::SeqCst);
        if connection.descriptors.load(Ordering::SeqCst) == 0 {
            // It was shut meanwhile, and forget() has looked before.
            connection.note_taken();
        }
        if all > UNTAKEN_BYTES {
            let shut = lock(&TABLE).free_untaken();
            shut.iter().for_each(|connection| tell(End::AnswerNotTaken, connection));
        }
    }

    /// The answer was written whole and said that it is the last.
    pub(crate) fn last(self, bytes: usize) {
        if let Some(connection) = &self.0
            && !connection.last.swap(true, Ordering::Relaxed)
        {
            // The client did not know: wake the thread that waits for its next head.
            connection.if_open(|fd| os::shutdown(fd, Shutdown::Read));
        }
        self.written(bytes);
    }

    /// The answer could not be written whole: nothing more can be said on this connection. The
    /// client does not take it, or `is_gone`.
    pub(crate) fn cut(self, is_gone: bool) {
        if let Some(connection) = &self.0
            && connection.doom()
            && !is_gone
        {
            tell(End::AnswerNotTaken, connection);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.mark.store(now(), Ordering::Relaxed);
            let mut turn = lock(&connection.turn);
            turn.busy = false;
            let awaited = turn.awaited;
            drop(turn);
            if awaited {
                connection.answered.notify_one();
            }
        }
    }
}

/// The door is not in effect: it did not answer a head that only it refuses.
#[derive(Debug)]
pub(crate) struct NotInEffect {
    address: SocketAddr,
    cause: String,
}

impl fmt::Display for NotInEffect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        write!(
            out,
            "the door before {address} is not in effect, and without it any client could take \
             this program down: {cause}"
        )
    }
}

/// Makes sure that std calls each of the three functions of `os.rs`, for each of the listeners.
pub(crate) fn prove(mut addresses: impl Iterator<Item = SocketAddr>) -> Result<(), NotInEffect> {
    addresses.try_for_each(prove_one)?;
    PROVEN.store(true, Ordering::Relaxed);
    Ok(())
}

/// Connects to `address`, sends a head that the door refuses and `tiny_http` lets in, and waits
/// until the door has seen that connection's end.
fn prove_one(address: SocketAddr) -> Result<(), NotInEffect> {
    let failed = |cause: String| NotInEffect { address, cause };
    // `::` takes IPv4 as well.
    let all = address.ip().is_unspecified();
    let ip = if all { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    let within = Duration::from_secs(5);
    let ask = || -> io::Result<(SocketAddr, String)> {
        let mut client = TcpStream::connect_timeout(&SocketAddr::new(ip, address.port()), within)?;
        let ours = client.local_addr()?;
        client.set_read_timeout(Some(within))?;
        client.write_all(b"GET /livez HTTP/1.1\r\n\r\n")?;
        let mut answer = String::new();
        client.take(1024).read_to_string(&mut answer)?;
        Ok((ours, answer))
    };
    let (ours, answer) = ask().map_err(|error| failed(error.to_string()))?;
    if !answer.starts_with("HTTP/1.1 400 ") {
        return Err(failed(format!("a request without Host got {:?}", answer.lines().next())));
    }
    let is_ours = |connection: &Arc<Connection>| {
        let peer = connection.peer;
        peer.port() == ours.port() && peer.ip().to_canonical() == ours.ip().to_canonical()
    };
    let is_open =
        |table: &mut Table| table.entrances.iter().flat_map(|entrance| &entrance.open).any(is_ours);
    let waited = CHANGED.wait_timeout_while(lock(&TABLE), within, is_open);
    if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
        return Err(failed("the end of a connection was not noticed".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_program_whose_symbols_are_not_called_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::Builder::new().spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 64]).unwrap() > 0);
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        });
        let error = prove_one(address).unwrap_err().to_string();
        assert!(error.contains("not in effect") && error.contains("200 OK"), "{error}");
        server.unwrap().join().unwrap();
    }
}
