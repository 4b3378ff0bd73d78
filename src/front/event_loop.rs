//! The front's loop: waits for readiness events and messages, and handles them.
//!
//! It carries out what `admission` decides. It never waits for a client or a worker.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::warn;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event as Readiness, EventData, EventFlags};
use rustix::io::Errno;

use super::acceptor::{Accepted, Acceptor};
use super::admission::{Admission, Phase, Room, TooManyHeld};
use super::connection::{Close, Connection, Input, Next, READ_SIZE, Written};
use super::counts::{Counts, Event, Report};
use super::head::{self, Refusal};
use super::inbox::{After, Id, Inbox, Message};
use super::lane::Lane;
use crate::http::answer::{self, Bytes};
use crate::logging::{self, LineKind};

/// The most connections accepted in one turn of the loop, so that open ones do not wait for long.
const MAX_ACCEPTS: usize = 64;
/// The most events received from the kernel in one turn.
const MAX_EVENTS: usize = 256;
/// How long to wait after the kernel had no descriptor or no memory for a connection.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// The sources of events other than connections. No connection has one of these ids: its slot, in
/// the lower 32 bits, is far smaller.
const OF_LISTENER: u64 = u64::MAX;
const OF_INBOX: u64 = u64::MAX - 1;
const OF_LANE: u64 = u64::MAX - 2;

/// Why a front's loop ended.
pub(super) enum Ended {
    Listener(Errno),
    Lane(io::Error),
    LaneHungUp,
    Epoll(Errno),
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(error) => write!(out, "accept failed: {error}"),
            Self::Lane(error) => write!(out, "cannot write to tiny_http: {error}"),
            Self::LaneHungUp => out.write_str("tiny_http has stopped reading"),
            Self::Epoll(error) => write!(out, "epoll failed: {error}"),
        }
    }
}

/// What the front's thread owns.
pub(super) struct Loop {
    epoll: OwnedFd,
    acceptor: Acceptor,
    inbox: Arc<Inbox>,
    lane: Lane,
    admission: Admission,
    /// By slot.
    connections: Vec<Option<Connection>>,
    /// Of the last connection that was accepted: see [`Id`].
    generation: u32,
    last_accepted: Option<Instant>,
    counts: Counts,
    scratch: [u8; READ_SIZE],
}

impl Loop {
    pub(super) fn new(
        listener: TcpListener,
        lane: Lane,
        inbox: Arc<Inbox>,
        max_connections: usize,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &listener, EventData::new_u64(OF_LISTENER), edge)?;
        epoll::add(&epoll, &*inbox, EventData::new_u64(OF_INBOX), edge)?;
        // Nothing is read from it: only a hang-up, which is always reported.
        epoll::add(&epoll, &lane, EventData::new_u64(OF_LANE), EventFlags::ET)?;
        Ok(Self {
            epoll,
            acceptor: Acceptor::new(listener),
            inbox,
            lane,
            admission: Admission::new(max_connections),
            connections: Vec::new(),
            generation: 0,
            last_accepted: None,
            counts: Counts::default(),
            scratch: [0; READ_SIZE],
        })
    }

    pub(super) fn run(mut self) -> Ended {
        let mut events = Vec::with_capacity(MAX_EVENTS);
        let mut messages = Vec::new();
        loop {
            if let Err(ended) = self.turn(&mut events, &mut messages) {
                return ended;
            }
        }
    }

    /// Waits until something happens, and handles it. `events` and `messages` are empty before and
    /// after.
    fn turn(
        &mut self,
        events: &mut Vec<Readiness>,
        messages: &mut Vec<Message>,
    ) -> Result<(), Ended> {
        self.inbox.collect(messages);
        let wait = if messages.is_empty() { self.wait() } else { Some(Timespec::default()) };
        let room = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, room, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Ended::Epoll(error)),
        }
        // Otherwise the messages that woke it up would wait for another turn.
        if messages.is_empty() && events.iter().any(|event| event.data.u64() == OF_INBOX) {
            self.inbox.collect(messages);
        }
        let now = Instant::now();
        for message in messages.drain(..) {
            self.handle(message, now);
            self.lane.flush_if_long().map_err(Ended::Lane)?;
        }
        for Readiness { flags, data } in events.drain(..) {
            match data.u64() {
                OF_INBOX => {}
                OF_LISTENER => self.acceptor.note(),
                OF_LANE => return Err(Ended::LaneHungUp),
                number => self.on_ready(Id::from_number(number), flags, now),
            }
            self.lane.flush_if_long().map_err(Ended::Lane)?;
        }
        if self.acceptor.due(now).is_some_and(|at| at <= now) {
            self.accept(now)?;
        }
        self.expire(now);
        self.lane.flush().map_err(Ended::Lane)
    }

    /// How long to wait for an event; `None`: until there is one.
    fn wait(&self) -> Option<Timespec> {
        let now = Instant::now();
        let next =
            [self.admission.deadline(), self.acceptor.due(now)].into_iter().flatten().min()?;
        Timespec::try_from(next.saturating_duration_since(now)).ok()
    }

    // New connections.

    fn accept(&mut self, now: Instant) -> Result<(), Ended> {
        self.acceptor.resume();
        for _ in 0..MAX_ACCEPTS {
            if !self.acceptor.is_open() {
                return Ok(());
            }
            let room = self.admission.room(now);
            if let Room::WaitUntil(at) = room {
                self.acceptor.pause(at);
                return Ok(());
            }
            match self.acceptor.accept() {
                Accepted::Connection(stream, peer) => {
                    if let Room::Evict(slot) = room {
                        self.evict(slot);
                    }
                    self.open(stream, peer, now);
                }
                Accepted::Gone => {}
                Accepted::None => {
                    self.admission.none_waiting();
                    return Ok(());
                }
                Accepted::Shortage(error) => {
                    if logging::admits(LineKind::Shortage) {
                        let hint = "raise the limit of descriptors (ulimit -n), or of memory";
                        warn!(error:%, hint; "cannot accept a connection, retrying");
                    }
                    self.acceptor.pause(now + SHORTAGE_PAUSE);
                    return Ok(());
                }
                Accepted::Broken(error) => return Err(Ended::Listener(error)),
            }
        }
        Ok(())
    }

    fn open(&mut self, stream: TcpStream, peer: SocketAddr, now: Instant) {
        self.counts.accepted += 1;
        self.last_accepted = Some(now);
        self.generation = self.generation.wrapping_add(1);
        let slot = self.admission.insert(now);
        let Some(id) = Id::new(slot, self.generation) else { return self.admission.remove(slot) };
        let connection = Connection::new(id, stream, peer);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if epoll::add(&self.epoll, &connection, EventData::new_u64(id.number()), flags).is_err() {
            self.counts.note(Event::Rejected, connection.peer());
            return self.admission.remove(slot);
        }
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.connections.get_mut(slot) {
            *place = Some(connection);
        }
        // Its request has usually arrived by now. A connection that has waited at the listener
        // should not wait again for its event, behind thousands of others.
        self.next_head(slot, now);
    }

    // Requests and answers.

    fn connection(&mut self, slot: usize) -> Option<&mut Connection> {
        self.connections.get_mut(slot)?.as_mut()
    }

    /// `None` when it has been closed: its slot may have another one by now.
    fn find(&mut self, id: Id) -> Option<(usize, &mut Connection)> {
        let slot = id.slot();
        self.connection(slot).filter(|connection| connection.id == id).map(|found| (slot, found))
    }

    fn on_ready(&mut self, id: Id, flags: EventFlags, now: Instant) {
        let Some((slot, connection)) = self.find(id) else { return };
        connection.note(flags);
        match self.admission.phase(slot) {
            // Its request is in tiny_http's queue. Even if it was reset, it keeps its slot until
            // the answer, so that the connection limit bounds that queue too.
            Some(Phase::Answering) => {}
            _ if flags.contains(EventFlags::ERR) => self.close(slot, Close::Deliver),
            Some(Phase::Idle | Phase::ReadingHead) => self.next_head(slot, now),
            Some(Phase::Writing) if flags.contains(EventFlags::OUT) => self.write_more(slot, now),
            Some(Phase::Closing | Phase::Refused) => self.drop_input(slot),
            Some(Phase::Writing) | None => {}
        }
    }

    fn next_head(&mut self, slot: usize, now: Instant) {
        let Self { connections, scratch, lane, admission, .. } = self;
        let Some(Some(connection)) = connections.get_mut(slot) else { return };
        let next = connection.next_head(scratch, &mut lane.heads);
        let held = admission.set_held(slot, connection.held());
        match (next, held) {
            (Next::Forwarded, _) => admission.set_phase(slot, Phase::Answering, now),
            (Next::End, _) => self.finish(slot, now),
            (Next::Gone, _) => self.close(slot, Close::Deliver),
            (Next::Refused(refusal), _) => self.refuse(slot, refusal, now),
            (Next::Partial, Err(TooManyHeld)) => self.refuse(slot, head::TOO_MUCH, now),
            (Next::Partial, Ok(())) if admission.phase(slot) == Some(Phase::Idle) => {
                admission.set_phase(slot, Phase::ReadingHead, now);
            }
            (Next::Partial | Next::Nothing, _) => {}
        }
    }

    fn handle(&mut self, message: Message, now: Instant) {
        match message {
            Message::Answer { to, bytes, after } => self.answer(to, bytes, after, now),
            Message::NoAnswer { to } => {
                if let Some((slot, _)) = self.find(to) {
                    self.close_counted(slot, Event::Unanswered);
                }
            }
            Message::StopAccepting => self.acceptor.stop(),
            Message::Report(sender) => {
                let report = Report {
                    is_quiet: self.admission.is_quiet(now) && !self.acceptor.is_stopping(),
                    last_accepted: self.last_accepted,
                    open: self.admission.open(),
                    limit: self.admission.limit(),
                    counts: self.counts.clone(),
                };
                // The receiver may have given up.
                let _ = sender.send(report);
            }
        }
    }

    fn answer(&mut self, to: Id, bytes: Bytes, after: After, now: Instant) {
        let slot = to.slot();
        if self.admission.phase(slot) != Some(Phase::Answering) {
            return;
        }
        let Some((_, connection)) = self.find(to) else { return };
        let length = bytes.length();
        let written = connection.write(bytes, after);
        self.admission.add_unread(slot, length);
        self.after_write(slot, &written, now);
        if self.admission.is_unread_over() {
            self.close_excess_unread();
        }
    }

    fn write_more(&mut self, slot: usize, now: Instant) {
        let Some(connection) = self.connection(slot) else { return };
        let written = connection.write_more();
        self.after_write(slot, &written, now);
    }

    fn after_write(&mut self, slot: usize, written: &Written, now: Instant) {
        match written {
            Written::Gone => self.close(slot, Close::Deliver),
            // The time limit starts again each time the send buffer has room.
            Written::Partly => self.admission.set_phase(slot, Phase::Writing, now),
            Written::Complete(After::Close) => self.finish(slot, now),
            Written::Complete(After::KeepAlive) => {
                self.admission.set_phase(slot, Phase::Idle, now);
                if self.connection(slot).is_some_and(|connection| connection.has_more()) {
                    self.next_head(slot, now);
                }
            }
        }
    }

    // The end of connections.

    fn expire(&mut self, now: Instant) {
        while let Some((slot, phase)) = self.admission.expired(now) {
            match phase {
                Phase::ReadingHead => self.refuse(slot, head::TOO_SLOW, now),
                Phase::Answering => self.close_counted(slot, Event::Unanswered),
                Phase::Writing => self.close_counted(slot, Event::Unread),
                Phase::Idle | Phase::Closing | Phase::Refused => match self.finished(slot) {
                    Some(how) => self.close(slot, how),
                    None => self.close_counted(slot, Event::Unread),
                },
            }
        }
    }

    /// Answers without `tiny_http`, and gives the client time to read that before closing.
    fn refuse(&mut self, slot: usize, refusal: Refusal, now: Instant) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let method = if connection.has_method_head() { "HEAD" } else { "GET" };
        connection.refuse(&answer::refusal(method, refusal.status, SystemTime::now()));
        self.counts.note(Event::Refused(refusal), connection.peer());
        // It cannot fail: nothing is held any more.
        let _ = self.admission.set_held(slot, 0);
        self.admission.set_phase(slot, Phase::Refused, now);
        self.drop_input(slot);
    }

    /// No request follows: ends the stream towards the client, and closes the connection once the
    /// client has received everything.
    fn finish(&mut self, slot: usize, now: Instant) {
        let Some(connection) = self.connection(slot) else { return };
        connection.finish();
        let _ = self.admission.set_held(slot, 0);
        self.admission.set_phase(slot, Phase::Closing, now);
        self.drop_input(slot);
    }

    fn drop_input(&mut self, slot: usize) {
        let Self { connections, scratch, .. } = self;
        let Some(Some(connection)) = connections.get_mut(slot) else { return };
        match connection.drop_input(scratch) {
            Input::Gone => self.close(slot, Close::Deliver),
            Input::Over => {
                if let Some(how) = self.finished(slot) {
                    self.close(slot, how);
                }
            }
            Input::Open => {}
        }
    }

    /// How to close a connection that gets no more answers, without counting it; `None` if that
    /// would discard something which its client has not read.
    fn finished(&mut self, slot: usize) -> Option<Close> {
        match self.admission.phase(slot)? {
            // It was counted as refused.
            Phase::Refused => Some(Close::DiscardUnread),
            Phase::Idle | Phase::Closing => {
                self.connection(slot)?.has_read_all().then_some(Close::Deliver)
            }
            Phase::ReadingHead | Phase::Answering | Phase::Writing => None,
        }
    }

    fn evict(&mut self, slot: usize) {
        let is_over = matches!(self.admission.phase(slot), Some(Phase::Closing | Phase::Refused));
        match self.finished(slot).filter(|_| is_over) {
            Some(how) => self.close(slot, how),
            None => self.close_counted(slot, Event::Evicted),
        }
    }

    /// Measures how much is unread, and closes the connections that `admission` names.
    fn close_excess_unread(&mut self) {
        for slot in self.admission.unread_slots() {
            let unread = self.connection(slot).map_or(0, |connection| connection.unread());
            self.admission.set_unread(slot, unread);
        }
        for slot in self.admission.excess_unread() {
            self.close_counted(slot, Event::Unread);
        }
    }

    /// Closes a connection for a reason that is counted and logged.
    fn close_counted(&mut self, slot: usize, event: Event) {
        let Self { connections, counts, .. } = self;
        if let Some(Some(connection)) = connections.get(slot) {
            counts.note(event, connection.peer());
        }
        self.close(slot, Close::Discard);
    }

    fn close(&mut self, slot: usize, how: Close) {
        if let Some(connection) = self.connections.get_mut(slot).and_then(Option::take) {
            connection.close(how);
            self.admission.remove(slot);
            // There is room now.
            self.acceptor.resume();
        }
    }
}
